/* Loaded before a program, this has it believe in a processor of 2008: with SSE4.2, without AVX and what came after.
 *
 * The kernel is asked to trap the instruction CPUID; what it says is passed on with the newer features struck out.
 * So libraries that look for themselves, and have no switch, are reached too. Exits with 77 where this cannot be done.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { ARCH_SET_CPUID = 0x1012, CANNOT = 77 };
/* Of leaf 1, ECX: FMA, XSAVE, OSXSAVE, AVX, F16C. */
static const unsigned NEWER = 1u << 12 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 29;

static long allow(int yes) { return syscall(SYS_arch_prctl, ARCH_SET_CPUID, yes); }

static void answer(int number, siginfo_t *info, void *context)
{
    greg_t *at = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *code = (const unsigned char *)at[REG_RIP];
    unsigned leaf = at[REG_RAX], a = leaf, b, c = at[REG_RCX], d;

    if (code[0] != 0x0f || code[1] != 0xa2) { /* No CPUID: a true fault. */
        signal(number, SIG_DFL);
        return;
    }
    allow(1);
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    allow(0);
    if (leaf == 1)
        c &= ~NEWER;
    else if (leaf == 7 || (leaf >= 0xd && leaf < 0x40)) /* AVX2 and later; the size of their state. */
        a = b = c = d = 0;
    at[REG_RAX] = a, at[REG_RBX] = b, at[REG_RCX] = c, at[REG_RDX] = d;
    at[REG_RIP] += 2;
}

__attribute__((constructor)) static void begin(void)
{
    struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO | SA_NODEFER};
    if (sigaction(SIGSEGV, &action, 0) || allow(0))
        _exit(CANNOT);
}
