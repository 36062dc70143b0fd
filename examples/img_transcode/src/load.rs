//! What the client sends, and what it expects back.

use crate::codec::{self, CodecError};
use crate::header::{Kind, Mark, Output, Work};
use crate::photos::Photo;
use crate::tiles::TiledTiff;
use crate::watermark;
use bytes::Bytes;
use dmrpc_pages::{ByteSize, PageSize};
use image::imageops;

/// The longer side in pixels of the uncompressed pictures that are watermarked, at most: 4 MiB of pixels.
pub(crate) const UNCOMPRESSED_SIDE: u32 = 1024;

/// Requests of one kind, taken in turns.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// What it is called in the table.
    pub(crate) title: String,
    /// What the last tier does.
    pub(crate) work: Work,
    /// What is sent.
    pub(crate) items: Vec<Item>,
}

/// An image to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// What it is called.
    pub(crate) name: String,
    /// How it is encoded.
    pub(crate) kind: Kind,
    /// The image.
    pub(crate) bytes: Bytes,
    /// The checksum of these bytes.
    pub(crate) sum: u32,
    /// Its width in pixels.
    pub(crate) width: u32,
    /// Its height in pixels.
    pub(crate) height: u32,
    /// Where a watermark is to go.
    pub(crate) mark: Option<Mark>,
    /// The checksum of what has to come back: of the image as the worker sees it, or of the transcoded image.
    pub(crate) expected: u32,
}

impl Load {
    /// Photographs to be moved, and summed at the end.
    pub(crate) fn moving(photos: &[Photo]) -> Self {
        let items = photos.iter().map(|photo| {
            let sum = crc32fast::hash(&photo.bytes);
            Item::of(photo, sum, sum)
        });
        Self { title: "move photographs".into(), work: Work::Checksum, items: items.collect() }
    }

    /// Bytes of one size to be moved, and summed at the end. They are taken from photographs.
    pub(crate) fn of_size(photos: &[Photo], size: ByteSize) -> Self {
        let size_bytes = usize::try_from(size.bytes()).expect("a size that fits memory");
        let all = photos.iter().flat_map(|photo| photo.bytes.iter().copied());
        let bytes: Bytes = all.cycle().take(size_bytes).collect();
        let sum = crc32fast::hash(&bytes);
        let item = Item {
            name: size.to_string(),
            kind: Kind::Opaque,
            bytes,
            sum,
            width: 0,
            height: 0,
            mark: None,
            expected: sum,
        };
        Self { title: format!("move {size}"), work: Work::Checksum, items: vec![item] }
    }

    /// Uncompressed pictures to be moved, watermarked on the way, and summed at the end.
    pub(crate) fn marking(photos: &[Photo], page: PageSize) -> Result<Self, CodecError> {
        let items = photos.iter().map(|photo| {
            let decoded = codec::decode(&photo.bytes, photo.kind)?;
            let (width, height) = codec::fit(photo.width, photo.height, UNCOMPRESSED_SIDE);
            let tiff = TiledTiff::lay_out(&imageops::thumbnail(&decoded, width, height), page);
            let mark = tiff.mark;
            let mut marked = tiff.bytes.clone();
            watermark::stamp(&mut marked, mark);
            Ok::<_, CodecError>(Item {
                name: photo.name.clone(),
                kind: Kind::TiledTiff,
                sum: crc32fast::hash(&tiff.bytes),
                bytes: tiff.bytes.into(),
                width,
                height,
                mark: Some(mark),
                expected: crc32fast::hash(&marked),
            })
        });
        Ok(Self {
            title: "move and watermark".into(),
            work: Work::Checksum,
            items: items.collect::<Result<_, CodecError>>()?,
        })
    }

    /// Photographs to be transcoded.
    pub(crate) fn transcoding(photos: &[Photo], output: Output) -> Result<Self, CodecError> {
        let items = photos.iter().map(|photo| {
            let jpeg = codec::transcode(&photo.bytes, photo.kind, output)?;
            Ok::<_, CodecError>(Item::of(photo, crc32fast::hash(&photo.bytes), crc32fast::hash(&jpeg)))
        });
        let items = items.collect::<Result<_, CodecError>>()?;
        Ok(Self { title: "transcode photographs".into(), work: Work::Transcode(output), items })
    }

    /// The mean size of what is sent, in bytes.
    pub(crate) fn mean_bytes(&self) -> f64 {
        self.items.iter().map(|item| item.bytes.len() as f64).sum::<f64>() / self.items.len() as f64
    }
}

impl Item {
    fn of(photo: &Photo, sum: u32, expected: u32) -> Self {
        Self {
            name: photo.name.clone(),
            kind: photo.kind,
            bytes: photo.bytes.clone(),
            sum,
            width: photo.width,
            height: photo.height,
            mark: None,
            expected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn photo() -> Photo {
        let picture = image::RgbImage::from_fn(1200, 90, |x, y| image::Rgb([x as u8, y as u8, 7]));
        let mut png = Cursor::new(Vec::new());
        picture.write_to(&mut png, image::ImageFormat::Png).unwrap();
        Photo { name: "p".into(), kind: Kind::Png, bytes: png.into_inner().into(), width: 1200, height: 90 }
    }

    #[test]
    fn a_marked_picture_differs_in_one_page() {
        let load = Load::marking(&[photo()], PageSize::MIN).unwrap();
        let item = &load.items[0];
        assert_eq!((item.width, item.height), (1024, 77));
        assert_ne!(item.sum, item.expected);
        let mut marked = item.bytes.to_vec();
        watermark::stamp(&mut marked, item.mark.unwrap());
        assert_eq!(crc32fast::hash(&marked), item.expected);
        let pages = marked.chunks(4096).zip(item.bytes.chunks(4096));
        assert_eq!(pages.filter(|(marked, original)| marked != original).count(), 1);
        let seen = codec::decode(&marked, Kind::TiledTiff).unwrap();
        assert_ne!(seen, codec::decode(&item.bytes, Kind::TiledTiff).unwrap());
    }

    #[test]
    fn sizes_are_exact_and_not_zeros() {
        for size in [1, 4096, 1 << 20] {
            let load = Load::of_size(&[photo()], ByteSize(size));
            assert_eq!(load.mean_bytes(), size as f64);
            assert!(load.items[0].bytes.iter().any(|byte| *byte != 0));
        }
    }
}
