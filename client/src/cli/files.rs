//! Writes pictures: whole or not at all.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use atelier_client::{Image, Preview};

/// Writes each image under its name, replacing what was there, and returns the names.
///
/// # Errors
/// When a file cannot be written; files before it stay, the file itself is as it was.
pub(super) fn write(output: &Path, images: &[Image]) -> anyhow::Result<Vec<PathBuf>> {
    let paths: Vec<_> = (0..images.len()).map(|at| numbered(output, at, images.len())).collect();
    for (path, image) in paths.iter().zip(images) {
        write_one(path, &image.bytes, true)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(paths)
}

/// Writes a preview, replacing the one before. It need not outlive a power cut.
///
/// # Errors
/// When the file cannot be written; it is as it was.
pub(super) fn write_preview(path: &Path, preview: &Preview) -> anyhow::Result<()> {
    write_one(path, &preview.png, false).with_context(|| format!("cannot write {}", path.display()))
}

/// Beside its place first and then renamed, so that a reader never sees half a picture.
fn write_one(path: &Path, bytes: &[u8], durable: bool) -> anyhow::Result<()> {
    let mut builder = tempfile::Builder::new();
    // Readable as any other new file: the process's mask takes away what it should.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    let builder = builder.prefix(".atelier-").permissions(mode);
    // The error's own text names the temporary file, which tells nobody anything.
    let made = builder.tempfile_in(directory(path));
    let mut file = made.map_err(|error| std::io::Error::from(error.kind()))?;
    file.as_file_mut().write_all(bytes)?;
    if durable {
        file.as_file().sync_all()?;
    }
    file.persist(path).map_err(|failed| failed.error)?;
    Ok(())
}

/// Where the file lies.
pub(super) fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// `cat.png` for one image; `cat-0.png`, `cat-1.png` for several.
fn numbered(output: &Path, at: usize, images: usize) -> PathBuf {
    if images == 1 {
        return output.to_owned();
    }
    let mut name: OsString = output.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{at}"));
    if let Some(extension) = output.extension() {
        name.push(".");
        name.push(extension);
    }
    output.with_file_name(name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    #[test]
    fn a_preview_replaces_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("preview.png");
        for png in [b"first".to_vec(), b"second".to_vec()] {
            write_preview(&path, &Preview { png: png.clone() }).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), png);
        }
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "nothing is left beside it");
        let nowhere = folder.path().join("missing/preview.png");
        assert!(write_preview(&nowhere, &Preview { png: Vec::new() }).is_err());
    }

    #[test]
    fn several_images_are_numbered_before_the_extension() {
        let name = |output: &str, at, images| numbered(Path::new(output), at, images);
        assert_eq!(name("a/cat.png", 0, 1), Path::new("a/cat.png"));
        assert_eq!(name("a/cat.png", 1, 2), Path::new("a/cat-1.png"));
        assert_eq!(name("cat", 0, 2), Path::new("cat-0"));
        assert_eq!(name("a.b.png", 0, 2), Path::new("a.b-0.png"));
    }
}
