//! Secrets as people hand them over: words, extended public keys, private keys, master keys, salts.
//! What is read reads the same when written again, and no error repeats any of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_fuzz::{Counting, VAULT};
use tidegate_vault::{AccountXpub, KeySource, MasterKey, Salt, Wallet};

/// Nothing longer than this of the input may come back in an error: shorter pieces are in sentences
/// of their own accord.
const PIECE: usize = 12;

fn repeats(error: &str, text: &str) -> bool {
    let text = text.trim().as_bytes();
    text.windows(PIECE).any(|piece| {
        // Spaces and plain words are the error's own; secrets are digits and letters without breaks.
        piece.iter().all(u8::is_ascii_alphanumeric) && error.as_bytes().windows(PIECE).any(|found| found == piece)
    })
}

fuzz_target!(|text: &str| {
    match VAULT.import_seed(text, "", "src_1", &mut Counting(4)) {
        Ok(sealed) => {
            let spelled = text.split_whitespace().map(str::to_ascii_uppercase).collect::<Vec<_>>().join("\t");
            assert_eq!(VAULT.words_match(&sealed, "src_1", &spelled, ""), Ok(true), "case and white space matter");
            assert_eq!(VAULT.words_match(&sealed, "src_1", text, "x"), Ok(false), "a passphrase does not matter");
        }
        Err(error) => assert!(!repeats(&format!("{error} {error:?}"), text)),
    }
    match AccountXpub::parse(text) {
        Ok(xpub) => {
            assert_eq!(xpub.to_text(), text.trim(), "an xpub has two spellings");
            assert!(text.trim().starts_with("xpub"));
            let _ = xpub.branch().and_then(|branch| branch.address(0));
        }
        Err(error) => assert!(!repeats(&format!("{error} {error:?}"), text)),
    }
    match VAULT.import_wallet(text, "wal_2", "net", &mut Counting(5)) {
        Ok(made) => {
            let wallet = Wallet { id: "wal_2", network: "net", address: &made.address };
            let key = VAULT.export_wallet(&wallet, &KeySource::Sealed(made.sealed.as_ref().expect("a key")), &made.tag).expect("just made");
            let digits = text.trim();
            assert_eq!(*key, digits.strip_prefix("0x").unwrap_or(digits).to_ascii_lowercase());
        }
        Err(error) => assert!(!repeats(&format!("{error} {error:?}"), text)),
    }
    match MasterKey::parse(text) {
        Ok(key) => {
            let again = MasterKey::parse(&key.to_hex()).expect("what it wrote");
            assert_eq!(*again.to_hex(), *key.to_hex());
            assert!(!format!("{key:?}").contains(&key.to_hex()[..16]));
        }
        Err(error) => assert!(!repeats(&format!("{error} {error:?}"), text)),
    }
    if let Ok(salt) = Salt::parse(text) {
        assert_eq!(Salt::parse(&salt.to_hex()), Ok(salt), "a salt reads as another when written");
    }
});
