"""Where videos come from: YouTube-8M by label, and a rendered miniature of it."""
