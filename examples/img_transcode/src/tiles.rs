//! A picture laid out so that a page shows something: an uncompressed TIFF (TIFF 6.0, section 15) whose tiles are one page
//! each and lie on page boundaries. To change what the picture shows in one tile is to write one page.
//!
//! ```text
//! byte 0        8                                  page                page * 2
//!      +--------+------------------+------------+---+--------------------+-------- - - -
//!      | "II*\0"| directory:       | offsets and| 0 | tile 0: RGBA       | tile 1
//!      | + 8    | 12 entries       | lengths    |   | rows of tile_width | ...
//!      +--------+------------------+------------+---+--------------------+-------- - - -
//! ```
//!
//! 1. Every tile starts at a multiple of the page size and is exactly a page.
//! 2. Any TIFF reader sees the picture that went in.

use crate::header::Mark;
use dmrpc_pages::PageSize;
use image::RgbImage;

/// Bytes of a pixel: red, green, blue, alpha.
const PIXEL_BYTES: u32 = 4;

/// A tiled TIFF, and where its tiles are.
#[derive(Clone, Debug)]
pub(crate) struct TiledTiff {
    /// The file.
    pub(crate) bytes: Vec<u8>,
    /// The last whole tile, in the lower right corner: where a watermark goes.
    pub(crate) mark: Mark,
}

impl TiledTiff {
    /// Lays out a picture in tiles of one page.
    pub(crate) fn lay_out(image: &RgbImage, page: PageSize) -> Self {
        let (tile_width, tile_height) = tile_pixels(page);
        let page_bytes = usize::try_from(page.bytes()).expect("a page fits memory");
        let (width, height) = image.dimensions();
        let (across, down) = (width.div_ceil(tile_width), height.div_ceil(tile_height));
        let tiles = across * down;

        let mut bytes = directory(width, height, tile_width, tile_height, tiles, page);
        let first_tile = bytes.len();
        bytes.resize(first_tile + tiles as usize * page_bytes, 0);
        for (row, pixels) in image.rows().enumerate() {
            let row = u32::try_from(row).expect("the height is a u32");
            for (column, pixel) in pixels.enumerate() {
                let column = u32::try_from(column).expect("the width is a u32");
                let tile = (row / tile_height) * across + column / tile_width;
                let within = (row % tile_height) * tile_width + column % tile_width;
                let at = first_tile + tile as usize * page_bytes + (within * PIXEL_BYTES) as usize;
                bytes[at..at + 4].copy_from_slice(&[pixel[0], pixel[1], pixel[2], u8::MAX]);
            }
        }
        let tile = (height / tile_height).saturating_sub(1) * across + (width / tile_width).saturating_sub(1);
        let offset = first_tile as u64 + u64::from(tile) * page.bytes();
        Self { bytes, mark: Mark { offset, width: tile_width, height: tile_height } }
    }
}

/// Width and height in pixels of a tile that fills a page: as near to a square as powers of two come.
fn tile_pixels(page: PageSize) -> (u32, u32) {
    let pixels = page.bytes() / u64::from(PIXEL_BYTES);
    let shift = pixels.trailing_zeros();
    (1 << shift.div_ceil(2), 1 << (shift / 2))
}

/// All of the file before its first tile.
fn directory(width: u32, height: u32, tile_width: u32, tile_height: u32, tiles: u32, page: PageSize) -> Vec<u8> {
    const SHORT: u16 = 3;
    const LONG: u16 = 4;
    const ENTRIES: u16 = 12;
    const HEAD_BYTES: u32 = 8;
    let page_bytes = u32::try_from(page.bytes()).expect("at most 2 MiB");
    let sample_bits = HEAD_BYTES + 2 + 12 * u32::from(ENTRIES) + 4;
    let offsets = sample_bits + 8;
    let lengths = offsets + 4 * tiles;
    let first_tile = (lengths + 4 * tiles).next_multiple_of(page_bytes);
    // One tile's offset stands in the entry itself.
    let (offsets_value, lengths_value) = if tiles == 1 { (first_tile, page_bytes) } else { (offsets, lengths) };

    let mut bytes = Vec::new();
    bytes.extend_from_slice(b"II*\0");
    bytes.extend_from_slice(&HEAD_BYTES.to_le_bytes());
    bytes.extend_from_slice(&ENTRIES.to_le_bytes());
    for (tag, kind, count, value) in [
        (256_u16, LONG, 1, width),         // ImageWidth
        (257, LONG, 1, height),            // ImageLength
        (258, SHORT, 4, sample_bits),      // BitsPerSample
        (259, SHORT, 1, 1),                // Compression: none
        (262, SHORT, 1, 2),                // PhotometricInterpretation: RGB
        (277, SHORT, 1, PIXEL_BYTES),      // SamplesPerPixel
        (284, SHORT, 1, 1),                // PlanarConfiguration: chunky
        (322, LONG, 1, tile_width),        // TileWidth
        (323, LONG, 1, tile_height),       // TileLength
        (324, LONG, tiles, offsets_value), // TileOffsets
        (325, LONG, tiles, lengths_value), // TileByteCounts
        (338, SHORT, 1, 2),                // ExtraSamples: alpha
    ] {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&u32::to_le_bytes(count));
        bytes.extend_from_slice(&u32::to_le_bytes(value));
    }
    bytes.extend_from_slice(&0_u32.to_le_bytes());
    for _ in 0..PIXEL_BYTES {
        bytes.extend_from_slice(&8_u16.to_le_bytes());
    }
    bytes.extend((0..tiles).flat_map(|tile| (first_tile + tile * page_bytes).to_le_bytes()));
    bytes.extend((0..tiles).flat_map(|_| page_bytes.to_le_bytes()));
    bytes.resize(first_tile as usize, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec, header::Kind};

    fn picture(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, (x * y) as u8]))
    }

    #[test]
    fn invariant_1_a_tile_is_a_page() {
        for page in [4 << 10, 16 << 10, 64 << 10, 2 << 20] {
            let page = PageSize::new(page).unwrap();
            let (width, height) = tile_pixels(page);
            assert_eq!(u64::from(width * height * PIXEL_BYTES), page.bytes());
            assert_eq!((width % 16, height % 16), (0, 0), "the standard asks for multiples of 16");
            let tiff = TiledTiff::lay_out(&picture(300, 200), page);
            assert_eq!(tiff.mark.offset % page.bytes(), 0);
            assert_eq!(tiff.bytes.len() as u64 % page.bytes(), 0);
            assert!(tiff.mark.offset + page.bytes() <= tiff.bytes.len() as u64);
        }
    }

    #[test]
    fn invariant_2_readers_see_the_picture() {
        for (width, height) in [(300, 200), (32, 32), (1, 1), (33, 31), (1024, 768)] {
            let source = picture(width, height);
            let tiff = TiledTiff::lay_out(&source, PageSize::MIN);
            let read = codec::decode(&tiff.bytes, Kind::TiledTiff).unwrap();
            assert_eq!(read.dimensions(), source.dimensions());
            assert!(read == source, "{width} x {height}");
        }
    }

    #[test]
    fn the_mark_covers_the_last_whole_tile() {
        let source = picture(300, 200);
        let mut tiff = TiledTiff::lay_out(&source, PageSize::MIN);
        let at = usize::try_from(tiff.mark.offset).unwrap();
        tiff.bytes[at..at + 4096].fill(255);
        let read = codec::decode(&tiff.bytes, Kind::TiledTiff).unwrap();
        for (x, y, pixel) in read.enumerate_pixels() {
            let inside = (256..288).contains(&x) && (160..192).contains(&y);
            let expected = if inside { image::Rgb([255; 3]) } else { *source.get_pixel(x, y) };
            assert_eq!(*pixel, expected, "at {x}, {y}");
        }
    }
}
