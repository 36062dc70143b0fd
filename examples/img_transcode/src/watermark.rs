//! The watermark: a white D on black, as large as a tile.

use crate::header::Mark;

/// The letter, a bit a pixel, the highest bit to the left.
const LETTER: [u8; 8] =
    [0b0000_0000, 0b0111_1000, 0b0110_1100, 0b0110_0110, 0b0110_0110, 0b0110_1100, 0b0111_1000, 0b0000_0000];

/// The bytes of a tile that shows the watermark.
pub(crate) fn tile(mark: Mark) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(mark.bytes());
    for y in 0..mark.height {
        for x in 0..mark.width {
            let row = LETTER[(u64::from(y) * 8 / u64::from(mark.height)) as usize];
            let ink = row & (0x80 >> (u64::from(x) * 8 / u64::from(mark.width))) != 0;
            let level = if ink { 255 } else { 0 };
            bytes.extend_from_slice(&[level, level, level, 255]);
        }
    }
    bytes
}

/// Puts the watermark on an image that one has for oneself. Whether the tile lies in it.
pub(crate) fn stamp(image: &mut [u8], mark: Mark) -> bool {
    let Ok(start) = usize::try_from(mark.offset) else { return false };
    let Some(tile_bytes) = start.checked_add(mark.bytes()).and_then(|end| image.get_mut(start..end)) else {
        return false;
    };
    tile_bytes.copy_from_slice(&tile(mark));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_the_tile_and_shows_the_letter() {
        let bytes = tile(Mark { offset: 0, width: 32, height: 16 });
        assert_eq!(bytes.len(), 32 * 16 * 4);
        let ink = |x: usize, y: usize| bytes[(y * 32 + x) * 4] == 255;
        assert!(!ink(0, 0) && ink(4, 2) && ink(11, 2) && !ink(31, 8));
    }

    #[test]
    fn a_tile_outside_is_refused() {
        let mark = |offset| Mark { offset, width: 2, height: 2 };
        assert!(stamp(&mut [7; 20], mark(4)));
        for offset in [5, u64::MAX] {
            let mut image = [7; 20];
            assert!(!stamp(&mut image, mark(offset)));
            assert_eq!(image, [7; 20]);
        }
    }
}
