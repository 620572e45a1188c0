//! Files for rows that leave the database: JSON, one row a line, compressed with gzip, readable by
//! their owner alone. A file is there whole or not at all.

use std::fs::{DirBuilder, File};
use std::io::{Error, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Writes rows to `name` below `dir`, on the disk and read back. The SHA-256 of the file, in hex.
///
/// # Errors
/// When it cannot be written, or does not read back as it was written.
pub fn write(dir: &Path, name: &str, rows: &[Value]) -> std::io::Result<String> {
    let path = dir.join(name);
    let folder = path.parent().unwrap_or(dir);
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut text = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut text, row)?;
        text.push(b'\n');
    }
    let draft = path.with_extension("gz.partial");
    // One that is left of a round that was killed is written anew.
    let file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&draft)?;
    let mut encoder = GzEncoder::new(file, Compression::default());
    encoder.write_all(&text)?;
    encoder.finish()?.sync_all()?;
    let packed = std::fs::read(&draft)?;
    let mut unpacked = Vec::with_capacity(text.len());
    GzDecoder::new(packed.as_slice()).read_to_end(&mut unpacked)?;
    if unpacked != text {
        return Err(Error::other(format!("{} does not read back as it was written", draft.display())));
    }
    std::fs::rename(&draft, &path)?;
    // A name is on the disk when its folder is.
    for folder in [Some(folder), Some(dir), dir.parent()].into_iter().flatten().filter(|folder| !folder.as_os_str().is_empty()) {
        File::open(folder)?.sync_all()?;
    }
    Ok(hex::encode(Sha256::digest(&packed)))
}
