"""How bright a pixel of high dynamic range is on an ordinary screen.

A gray of such a picture stands for light in candela per square metre; the ordinary gray of the same light is the one
that an ordinary screen would show it with, where diffuse white, 203 cd/m2, is its white. Brighter light is white too.

Right to 2 of 255 levels for what is gray. For colours it is an approximation, as it is made of the luma alone: a
saturated colour comes out darker than by way of its red, green and blue. What a file says of its own screen or
brightest light (mastering metadata, Dolby Vision) is not looked at.

Sources: SMPTE ST 2084 (PQ); ITU-R BT.2100 (HLG, on a screen of 1000 cd/m2); ITU-R BT.1886 (ordinary screens);
ITU-R BT.2408 (203 cd/m2).
"""

from av.video.reformatter import ColorTrc

WHITE_CD_M2 = 203
SCREEN_GAMMA = 2.4

# The formulas are ffmpeg's (`man ffmpeg-utils`), of a gray `e` in [0, 1] in register 0.
_PQ_LIGHT = "10000*pow(max(pow(ld(0),32/2523)-3424/4096,0)/(2413/128-2392/128*pow(ld(0),32/2523)),16384/2610)"
_HLG_SCENE = "if(lte(ld(0),0.5),ld(0)*ld(0)/3,(exp((ld(0)-0.55991073)/0.17883277)+0.28466892)/12)"
_LIGHT = {ColorTrc.SMPTE2084: _PQ_LIGHT, ColorTrc.ARIB_STD_B67: f"1000*pow({_HLG_SCENE},1.2)"}


def is_high_range(transfer: int) -> bool:
    """Whether pictures of this transfer characteristic (H.273, as ffmpeg and PyAV number them) are PQ or HLG."""
    return transfer in _LIGHT


def gray_formula(transfer: int, *, bits: int) -> str:
    """The ordinary gray of a gray of high dynamic range, as a formula of ffmpeg's `lut` filter.

    Args:
      transfer: one that `is_high_range`.
      bits: of a pixel, of the input and the result.
    """
    # `lut` gives no more than the white of 8 bits with zeros after it, and `scale` cuts those off again.
    brightest, white = (1 << bits) - 1, 255 << (bits - 8)
    share = f"min(({_LIGHT[ColorTrc(transfer)]})/{WHITE_CD_M2},1)"
    # The filter cuts off what is behind the point, so this rounds.
    return f"st(0,val/{brightest});{white}*pow({share},1/{SCREEN_GAMMA})+0.5"
