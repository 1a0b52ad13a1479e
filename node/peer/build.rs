//! Lists the files of the page that Vite made, so that the program contains them; none where it was not built.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let ui = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ui");
    let dist = ui.join("dist");
    // What is not there cannot be watched: its folder tells when it comes.
    let watched = if dist.is_dir() { &dist } else { &ui };
    println!("cargo:rerun-if-changed={}", watched.display());
    let mut files = Vec::new();
    if dist.is_dir() {
        list(&dist, &mut files)?;
    }
    files.sort();
    let mut table = "static BUILT: &[(&str, &[u8])] = &[\n".to_owned();
    for file in &files {
        let path = file.strip_prefix(&dist).map_err(io::Error::other)?;
        let line = writeln!(table, "    (\"/{}\", include_bytes!({file:?})),", path.display());
        line.map_err(io::Error::other)?;
    }
    table.push_str("];\n");
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo sets OUT_DIR"))?;
    fs::write(Path::new(&out).join("built_page.rs"), table)
}

fn list(directory: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() { list(&path, files)? } else { files.push(path) }
    }
    Ok(())
}
