//! Sealed texts and backups, altered: an input is a list of changes (where, to what) to a text of the
//! vault. Only the text that was made opens, and no error repeats what is inside.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use tidegate_fuzz::{Counting, PRIVATE_KEY, VAULT, WALLET};
use tidegate_vault::{BACKUP_PREAMBLE_BYTES, BackupOpener, BackupSealer, Binding, KeySource, Sealed, SealedDestination, SealedKey, Wallet};

const SECRET: &[u8] = b"whsec_never_to_be_seen";
const CHUNKS: [&[u8]; 3] = [b"the first chunk", b"", b"and the last"];

static SEALED: LazyLock<Sealed> = LazyLock::new(|| VAULT.seal(SECRET, &Binding::webhook_secret("mer_1"), &mut Counting(2)));
static BACKUP: LazyLock<(Vec<u8>, Vec<Vec<u8>>)> = LazyLock::new(|| {
    let (mut sealer, preamble) = BackupSealer::new(&VAULT, b"header", &mut Counting(3));
    let chunks = CHUNKS.iter().enumerate().map(|(at, chunk)| sealer.seal_chunk(chunk, at + 1 == CHUNKS.len())).collect();
    (preamble, chunks)
});

/// The first byte says what is done, then come changes of three bytes each: two for where, one for what.
fn altered(text: &[u8], changes: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    for change in changes.chunks_exact(3).take(8) {
        let at = usize::from(u16::from_be_bytes([change[0] & 0x7f, change[1]]));
        match change[0] >> 6 {
            0 if at < text.len() => text[at] = change[2],
            1 if at <= text.len() => text.insert(at, change[2]),
            2 if at < text.len() => drop(text.remove(at)),
            3 => text.truncate(at),
            _ => {}
        }
    }
    text
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, changes)) = data.split_first() else { return };
    match kind % 5 {
        0 => {
            let Ok(text) = String::from_utf8(altered(SEALED.as_str().as_bytes(), changes)) else { return };
            let opened = VAULT.open(&Sealed::from_text(text.as_str()), &Binding::webhook_secret("mer_1"));
            match opened {
                Ok(secret) => assert!(text == SEALED.as_str() && *secret == SECRET, "two texts open: {text}"),
                Err(error) => assert!(!format!("{error} {error:?}").contains("never_to_be_seen")),
            }
            VAULT.open(&Sealed::from_text(text.as_str()), &Binding::webhook_secret("mer_2")).expect_err("it is another's");
        }
        1 => {
            let sealed = WALLET.sealed.as_ref().expect("it has a key");
            let Ok(text) = String::from_utf8(altered(sealed.as_str().as_bytes(), changes)) else { return };
            let wallet = Wallet { id: "wal_1", network: "net", address: &WALLET.address };
            let key = SealedKey::from_text(text.as_str());
            match VAULT.export_wallet(&wallet, &KeySource::Sealed(&key), &WALLET.tag) {
                Ok(key) => assert!(text == sealed.as_str() && *key == PRIVATE_KEY, "two texts open: {text}"),
                Err(error) => assert!(!format!("{error} {error:?}").contains(PRIVATE_KEY)),
            }
        }
        2 => {
            let Ok(tag) = String::from_utf8(altered(WALLET.tag.as_bytes(), changes)) else { return };
            let wallet = Wallet { id: "wal_1", network: "net", address: &WALLET.address };
            assert_eq!(VAULT.verify_tag(&wallet, &tag), tag == WALLET.tag);
            assert!(!VAULT.verify_tag(&Wallet { id: "wal_2", ..wallet }, &tag));
        }
        3 => {
            let made = VAULT.seal_destination("net", &[7; 20]);
            let Ok(text) = String::from_utf8(altered(made.as_str().as_bytes(), changes)) else { return };
            let destination = SealedDestination::from_text(text.as_str());
            match VAULT.open_destination("net", &destination) {
                Some(address) => assert!(text == made.as_str() && address == [7; 20], "two texts open: {text}"),
                None => assert_ne!(text, made.as_str()),
            }
            assert_eq!(VAULT.open_destination("net2", &destination), None);
        }
        _ => {
            let (preamble, chunks) = &*BACKUP;
            let whole: Vec<u8> = [preamble.as_slice()].into_iter().chain(chunks.iter().map(Vec::as_slice)).flatten().copied().collect();
            let found = altered(&whole, changes);
            let Some((start, mut rest)) = found.split_at_checked(BACKUP_PREAMBLE_BYTES) else { return };
            let Ok(mut opener) = BackupOpener::new(&VAULT, start, b"header") else { return };
            let mut plain = Vec::new();
            for (at, chunk) in chunks.iter().enumerate() {
                let (now, later) = rest.split_at_checked(chunk.len()).unwrap_or((rest, &[]));
                let last = later.is_empty();
                let Ok(opened) = opener.open_chunk(now, last) else { break };
                assert_eq!(opened, CHUNKS[at], "another chunk opened");
                plain.push(opened);
                rest = later;
                if last {
                    break;
                }
            }
            assert_eq!(opener.is_whole(), found == whole && plain.len() == CHUNKS.len(), "a backup that is not whole passes for one");
        }
    }
});
