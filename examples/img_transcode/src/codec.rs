//! The real work: decode, resize, encode; and the check of what comes out of it.
//!
//! 1. The same bytes give the same bytes: by value and by reference must end in the same file.
//! 2. An image is never enlarged, and keeps its shape to within a pixel.
//! 3. Nothing that comes in, however malformed, takes more memory than [`MAX_DECODED_BYTES`].

use crate::header::{Kind, Output};
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use image::{DynamicImage, ImageFormat, ImageReader, Limits, RgbImage, codecs::jpeg::JpegEncoder};
use std::io::Cursor;

/// The most memory that a decoder may take, in bytes.
pub(crate) const MAX_DECODED_BYTES: u64 = 512 << 20;

/// Why an image can't be worked on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    /// It is none, or a broken one.
    #[error(transparent)]
    Image(#[from] image::ImageError),
    /// It can't be resized.
    #[error(transparent)]
    Resize(#[from] fast_image_resize::ResizeError),
    /// Nobody can decode that.
    #[error("bytes of an unknown kind can't be decoded")]
    Opaque,
}

/// Decodes an image to 8 bits each of red, green and blue.
pub(crate) fn decode(bytes: &[u8], kind: Kind) -> Result<RgbImage, CodecError> {
    let format = match kind {
        Kind::Jpeg => ImageFormat::Jpeg,
        Kind::Png => ImageFormat::Png,
        Kind::TiledTiff => ImageFormat::Tiff,
        Kind::Opaque => return Err(CodecError::Opaque),
    };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    reader.limits(limits);
    Ok(reader.decode()?.into_rgb8())
}

/// Decodes an image, resizes it so that it fits, and encodes it as JPEG.
pub(crate) fn transcode(bytes: &[u8], kind: Kind, output: Output) -> Result<Vec<u8>, CodecError> {
    let source = decode(bytes, kind)?;
    let (width, height) = fit(source.width(), source.height(), output.side);
    let resized = if (width, height) == source.dimensions() {
        DynamicImage::ImageRgb8(source)
    } else {
        let mut resized = DynamicImage::new_rgb8(width, height);
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
        Resizer::new().resize(&DynamicImage::ImageRgb8(source), &mut resized, &options)?;
        resized
    };
    let mut jpeg = Vec::with_capacity(64 << 10);
    JpegEncoder::new_with_quality(&mut jpeg, output.quality).encode_image(&resized)?;
    Ok(jpeg)
}

/// The size of an image of that shape whose longer side is at most `side`.
pub(crate) fn fit(width: u32, height: u32, side: u32) -> (u32, u32) {
    let longer = width.max(height);
    if longer <= side {
        return (width, height);
    }
    let scale = |length: u32| {
        let scaled = (u64::from(length) * u64::from(side) + u64::from(longer) / 2) / u64::from(longer);
        u32::try_from(scaled).expect("no longer than side").max(1)
    };
    (scale(width), scale(height))
}

/// How like two images of one size are: peak signal-to-noise ratio in decibels, infinite if they are the same. Pictures that
/// look alike have 30 or more; unrelated ones around 10.
pub(crate) fn psnr_db(one: &RgbImage, other: &RgbImage) -> f64 {
    assert_eq!(one.dimensions(), other.dimensions(), "only images of one size can be compared");
    let squares: u64 = one.as_raw().iter().zip(other.as_raw()).map(|(a, b)| u64::from(a.abs_diff(*b)).pow(2)).sum();
    let mean = squares as f64 / one.as_raw().len() as f64;
    10.0 * (255.0 * 255.0 / mean).log10()
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::imageops;

    const OUTPUT: Output = Output { side: 64, quality: 90 };

    fn gradient(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| image::Rgb([(x * 255 / width) as u8, (y * 255 / height) as u8, 90]))
    }

    fn encoded(image: &RgbImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn invariant_1_same_bytes_same_result_and_it_is_the_picture() {
        let source = gradient(200, 100);
        for (format, kind) in [(ImageFormat::Png, Kind::Png), (ImageFormat::Jpeg, Kind::Jpeg)] {
            let bytes = encoded(&source, format);
            let result = transcode(&bytes, kind, OUTPUT).unwrap();
            assert_eq!(result, transcode(&bytes, kind, OUTPUT).unwrap());
            let decoded = decode(&result, Kind::Jpeg).unwrap();
            assert_eq!(decoded.dimensions(), (64, 32));
            let reference = imageops::resize(&source, 64, 32, imageops::FilterType::Triangle);
            let likeness = psnr_db(&decoded, &reference);
            assert!(likeness > 30.0, "{format:?}: {likeness} dB");
            let upside_down = psnr_db(&decoded, &imageops::rotate180(&reference));
            assert!(upside_down < 20.0, "{format:?}: {upside_down} dB");
        }
    }

    #[test]
    fn invariant_2_never_enlarged_and_in_shape() {
        for (size, side, expected) in [
            ((640, 427), 1024, (640, 427)),
            ((5312, 2988), 640, (640, 360)),
            ((100, 5000), 64, (1, 64)),
            ((1, 5000), 64, (1, 64)),
            ((u32::MAX, u32::MAX - 1), 10, (10, 10)),
        ] {
            assert_eq!(fit(size.0, size.1, side), expected, "{size:?} to {side}");
        }
    }

    #[test]
    fn invariant_3_malformed_images_are_errors() {
        let png = encoded(&gradient(64, 64), ImageFormat::Png);
        let jpeg = encoded(&gradient(64, 64), ImageFormat::Jpeg);
        for bytes in [&b""[..], b"no image", &png[..png.len() / 2], &jpeg[..20]] {
            for kind in [Kind::Png, Kind::Jpeg, Kind::TiledTiff, Kind::Opaque] {
                assert!(transcode(bytes, kind, OUTPUT).is_err(), "{kind:?}");
            }
        }
        // A PNG that claims 60,000 x 60,000 pixels in a few bytes.
        let mut bomb = png.clone();
        bomb[16..24].copy_from_slice(&[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
        let sum = crc32fast::hash(&bomb[12..29]);
        bomb[29..33].copy_from_slice(&sum.to_be_bytes());
        assert!(transcode(&bomb, Kind::Png, OUTPUT).is_err());
    }

    #[test]
    fn likeness_of_the_same_is_infinite() {
        let image = gradient(16, 16);
        assert_eq!(psnr_db(&image, &image), f64::INFINITY);
    }
}
