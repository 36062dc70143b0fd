//! The photographs of a folder.

use crate::header::Kind;
use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use image::{ImageFormat, ImageReader};
use std::io::Cursor;
use std::path::Path;

/// The most photographs that are loaded.
const MAX_PHOTOS: usize = 1000;

/// The most bytes that all of them together may have: they stay in memory.
const MAX_TOTAL_BYTES: u64 = 1 << 30;

/// A photograph as it came from its file.
#[derive(Clone, Debug)]
pub(crate) struct Photo {
    /// The file's name without its ending.
    pub(crate) name: String,
    /// How it is encoded.
    pub(crate) kind: Kind,
    /// The file.
    pub(crate) bytes: Bytes,
    /// Its width in pixels.
    pub(crate) width: u32,
    /// Its height in pixels.
    pub(crate) height: u32,
}

/// Loads every JPEG and PNG of a folder, in the order of their names; other files are skipped.
pub(crate) fn load(folder: &Path) -> anyhow::Result<Vec<Photo>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("can't read the folder {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().and_then(|ending| ending.to_str()).and_then(kind_of).is_some());
    paths.sort();
    ensure!(!paths.is_empty(), "there is no .jpg, .jpeg or .png in {}", folder.display());
    ensure!(
        paths.len() <= MAX_PHOTOS,
        "{} has {} photographs, over the limit of {MAX_PHOTOS}",
        folder.display(),
        paths.len()
    );

    let mut photos = Vec::with_capacity(paths.len());
    let mut total = 0;
    for path in &paths {
        let photo = load_one(path).with_context(|| format!("can't use {}", path.display()))?;
        total += photo.bytes.len() as u64;
        ensure!(total <= MAX_TOTAL_BYTES, "the photographs of {} are over {MAX_TOTAL_BYTES} bytes", folder.display());
        photos.push(photo);
    }
    Ok(photos)
}

fn load_one(path: &Path) -> anyhow::Result<Photo> {
    let bytes = Bytes::from(std::fs::read(path)?);
    // What it is, whatever its name says.
    let reader = ImageReader::new(Cursor::new(&bytes)).with_guessed_format()?;
    let kind = match reader.format() {
        Some(ImageFormat::Jpeg) => Kind::Jpeg,
        Some(ImageFormat::Png) => Kind::Png,
        _ => bail!("it is neither JPEG nor PNG"),
    };
    let (width, height) = reader.into_dimensions()?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Photo { name, kind, bytes, width, height })
}

fn kind_of(ending: &str) -> Option<Kind> {
    match ending.to_ascii_lowercase().as_str() {
        "jpg" | "jpeg" => Some(Kind::Jpeg),
        "png" => Some(Kind::Png),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn shipped() -> Vec<Photo> {
        load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("photos")).unwrap()
    }

    #[test]
    fn the_shipped_ones_are_real_and_small_enough_to_ship() {
        let photos = shipped();
        assert!(photos.len() >= 8);
        assert!(
            photos.iter().any(|photo| photo.kind == Kind::Png) && photos.iter().any(|photo| photo.kind == Kind::Jpeg)
        );
        assert!(photos.iter().map(|photo| photo.bytes.len()).sum::<usize>() <= 6 << 20);
        let sources = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("photos/SOURCES.md")).unwrap();
        for photo in &photos {
            assert!(photo.width >= 300 && photo.height >= 300, "{}", photo.name);
            assert!(sources.contains(&format!("`{}.", photo.name)), "{} has no source", photo.name);
        }
    }

    #[test]
    fn what_can_not_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let why = |folder: &Path| format!("{:#}", load(folder).unwrap_err());
        assert!(why(folder.path()).contains("there is no .jpg"));
        fs::write(folder.path().join("notes.txt"), "no image").unwrap();
        assert!(why(folder.path()).contains("there is no .jpg"));
        fs::write(folder.path().join("broken.jpg"), "no image").unwrap();
        assert!(why(folder.path()).contains("broken.jpg"));
        assert!(why(&folder.path().join("nowhere")).contains("nowhere"));
    }

    #[test]
    fn a_png_called_jpg_is_a_png() {
        let folder = tempfile::tempdir().unwrap();
        let png = shipped().into_iter().find(|photo| photo.kind == Kind::Png).unwrap();
        fs::write(folder.path().join("misnamed.JPG"), &png.bytes).unwrap();
        let photos = load(folder.path()).unwrap();
        assert_eq!((photos.len(), photos[0].kind, photos[0].width), (1, Kind::Png, png.width));
    }
}
