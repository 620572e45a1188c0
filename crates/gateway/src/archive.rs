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

use crate::clock;

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
    // Each round has a draft of its own. One that is left of a round that was killed goes, and so does that
    // of a process that was paused: it finds it gone, and then deletes nothing.
    let drafts = format!("{}.", path.file_name().unwrap_or_default().to_string_lossy());
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&drafts) && name.ends_with(".partial") {
            std::fs::remove_file(entry.path())?;
        }
    }
    let draft = path.with_file_name(format!("{drafts}{}.partial", hex::encode(clock::random::<8>())));
    let file = File::options().create_new(true).write(true).mode(0o600).open(&draft)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_of_another_round_goes_and_is_no_part_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("t");
        std::fs::create_dir(&folder).unwrap();
        for (name, stays) in [("a.jsonl.gz.0011.partial", false), ("b.jsonl.gz.0011.partial", true)] {
            std::fs::write(folder.join(name), "half").unwrap();
            write(dir.path(), "t/a.jsonl.gz", &[serde_json::json!({ "id": 1 })]).unwrap();
            assert_eq!(folder.join(name).exists(), stays, "{name}");
        }
        let mut text = String::new();
        GzDecoder::new(File::open(folder.join("a.jsonl.gz")).unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "{\"id\":1}\n");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2, "no draft is left");
    }
}
