//! Sealing: what is sealed opens for the same thing, and for nothing else.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use tidegate_vault::{
    BackupOpener, Binding, Coin, KeySource, MasterKey, OpenError, OsEntropy, Sealed, SealedDestination, SealedKey, SealedSeed, VerifyError,
    Wallet,
};

use crate::{OTHER, Seeded, VAULT, key, unlock};

#[test]
fn a_secret_opens_for_what_it_was_sealed_for() {
    let binding = Binding::webhook_secret("m1");
    let sealed = VAULT.seal(b"whsec_1", &binding, &mut OsEntropy);
    assert_eq!(**VAULT.open(&sealed, &binding).unwrap(), *b"whsec_1");
    for other in [
        Binding::webhook_secret("m2"),
        Binding::new("totp-seed", &["m1"]),
        Binding::new("webhook-secret", &["m1", ""]),
        Binding::new("webhook-secret", &["m", "1"]),
        Binding::new("webhook-secret", &[]),
        Binding::new("webhook-secretm", &["1"]),
    ] {
        assert_eq!(VAULT.open(&sealed, &other), Err(OpenError::Refused), "{other:?}");
    }
    let told = OTHER.open(&sealed, &binding).unwrap_err();
    assert!(told.to_string().contains(VAULT.key_id()) && told.to_string().contains(OTHER.key_id()));
}

#[test]
fn two_seals_of_one_secret_have_nothing_in_common() {
    let binding = Binding::webhook_secret("m1");
    let seal = || VAULT.seal(b"whsec_1", &binding, &mut OsEntropy).as_str().to_owned();
    let (one, two) = (seal(), seal());
    assert_eq!(one.split('.').nth(1), Some(VAULT.key_id()));
    assert_ne!(one.split('.').nth(2), two.split('.').nth(2));
}

/// Every way to alter one byte of `text`, and every way to cut it.
pub(crate) fn altered(text: &str) -> Vec<String> {
    let (head, body) = text.rsplit_once('.').unwrap();
    let bytes = STANDARD.decode(body).unwrap();
    let with = |bytes: &[u8]| format!("{head}.{}", STANDARD.encode(bytes));
    let flips = (0..bytes.len()).map(|at| {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        with(&flipped)
    });
    let cuts = (0..bytes.len()).map(|length| with(&bytes[..length]));
    let text_flips = (0..text.len()).map(|at| {
        let mut flipped = text.to_owned();
        flipped.replace_range(at..=at, if &text[at..=at] == "A" { "B" } else { "A" });
        flipped
    });
    let text_cuts = (0..text.len()).map(|length| text[..length].to_owned());
    let longer = ["", "A", "AAAA", "=", "\n"].map(|tail| format!("{text}{tail}")).into_iter().skip(1);
    flips.chain(cuts).chain(text_flips).chain(text_cuts).chain(longer).collect()
}

#[test]
fn a_secret_is_taken_over_once() {
    let binding = Binding::webhook_secret("m1");
    let sealed = VAULT.seal(b"whsec_1", &binding, &mut Seeded(1));
    let adopted = OTHER.adopt_secret(&VAULT, &sealed, &binding, &mut Seeded(2)).unwrap();
    assert_eq!(adopted.key_id(), Some(OTHER.key_id()));
    assert_eq!(**OTHER.open(&adopted, &binding).unwrap(), *b"whsec_1");
    assert_eq!(OTHER.adopt_secret(&VAULT, &adopted, &binding, &mut Seeded(3)).unwrap(), adopted);
    for text in [&sealed, &adopted] {
        let refused = OTHER.adopt_secret(&VAULT, text, &Binding::webhook_secret("m2"), &mut Seeded(3));
        assert_eq!(refused, Err(OpenError::Refused));
    }
    let third = unlock(crate::MASTER_KEY, "another salt of the tests").seal(b"", &binding, &mut Seeded(1));
    let refused = OTHER.adopt_secret(&VAULT, &third, &binding, &mut Seeded(3));
    assert!(matches!(refused, Err(OpenError::OtherKey { .. })));
}

#[test]
fn an_altered_secret_does_not_open() {
    let binding = Binding::webhook_secret("m1");
    let sealed = VAULT.seal(b"whsec_1", &binding, &mut Seeded(1));
    for text in altered(sealed.as_str()) {
        assert!(VAULT.open(&Sealed::from_text(&text), &binding).is_err(), "{text}");
    }
}

#[test]
fn a_wallet_key_opens_for_its_wallet_alone() {
    // I11: ciphertexts are bound to wallet id, network and address.
    let made = VAULT.generate_wallet("w1", "tron", &mut Seeded(2));
    let wallet = Wallet { id: "w1", network: "tron", address: &made.address };
    for text in altered(made.sealed.as_ref().unwrap().as_str()) {
        let verified = VAULT.verify_wallet(&wallet, &KeySource::Sealed(&SealedKey::from_text(&text)), &made.tag);
        assert!(matches!(verified, Err(VerifyError::Key(_))), "{text}");
    }
    let elsewhere = [9; 20];
    for other in [Wallet { id: "w2", ..wallet }, Wallet { network: "nile", ..wallet }, Wallet { address: &elsewhere, ..wallet }] {
        let verified = VAULT.verify_wallet(&other, &key(&made), &VAULT.tag(&other));
        assert_eq!(verified, Err(VerifyError::Key(OpenError::Refused)), "{other:?}");
    }
    let verified = OTHER.verify_wallet(&wallet, &key(&made), &OTHER.tag(&wallet));
    assert!(matches!(verified, Err(VerifyError::Key(OpenError::OtherKey { .. }))));
    // A text that was cut is told from one that was altered.
    let text = made.sealed.as_ref().unwrap().as_str();
    for (text, expected) in [
        (text[..text.len() - 4].to_owned(), OpenError::Malformed),
        (text.replace("v1.", "v2."), OpenError::Malformed),
        (String::new(), OpenError::Malformed),
        (text.replace(&text[20..24], "AAAA"), OpenError::Refused),
    ] {
        let verified = VAULT.verify_wallet(&wallet, &KeySource::Sealed(&SealedKey::from_text(&text)), &made.tag);
        assert_eq!(verified, Err(VerifyError::Key(expected)), "{text}");
    }
}

#[test]
fn the_general_door_opens_no_wallet_key() {
    // Even when the text is passed off as another kind of secret, with the very same binding.
    let made = VAULT.generate_wallet("w1", "tron", &mut Seeded(2));
    let address = String::from_utf8_lossy(&made.address).into_owned();
    let passed_off = Sealed::from_text(made.sealed.unwrap().as_str());
    for binding in [Binding::new("w1", &["tron", &address]), Binding::new("wallet", &["w1", "tron", &address]), Binding::new("", &[])] {
        assert_eq!(VAULT.open(&passed_off, &binding), Err(OpenError::Refused));
    }
    // Nor the reverse: a secret of another kind is no wallet key.
    let wallet = Wallet { id: "w1", network: "tron", address: b"abcdefghijklmnopqrst" };
    let binding = Binding::new("w1", &["tron", "abcdefghijklmnopqrst"]);
    let secret = VAULT.seal(&[1; 32], &binding, &mut Seeded(3));
    let verified = VAULT.verify_wallet(&wallet, &KeySource::Sealed(&SealedKey::from_text(secret.as_str())), &VAULT.tag(&wallet));
    assert_eq!(verified, Err(VerifyError::Key(OpenError::Refused)));
}

#[test]
fn a_destination_is_sealed_for_one_network() {
    let sealed = VAULT.seal_destination("tron", &[7; 20]);
    assert_eq!(sealed.key_id(), Some(VAULT.key_id()));
    assert_eq!(VAULT.open_destination("tron", &sealed), Some([7; 20]));
    assert_eq!(VAULT.open_destination("ethereum", &sealed), None);
    assert_eq!(OTHER.open_destination("tron", &sealed), None);
    let text = sealed.as_str();
    for at in 0..text.len() {
        let mut forged = text.to_owned();
        forged.replace_range(at..=at, if &text[at..=at] == "0" { "1" } else { "0" });
        let forged = SealedDestination::from_text(forged);
        assert_eq!(VAULT.open_destination("tron", &forged), None, "{}", forged.as_str());
        let cut = SealedDestination::from_text(&text[..at]);
        assert_eq!(VAULT.open_destination("tron", &cut), None, "{}", cut.as_str());
    }
}

#[test]
fn a_fingerprint_is_keyed() {
    let print = VAULT.fingerprint(b"{}");
    assert_eq!((print.len(), &print), (64, &VAULT.fingerprint(b"{}")));
    assert_ne!(print, VAULT.fingerprint(b"{ }"));
    assert_ne!(print, OTHER.fingerprint(b"{}"));
}

#[test]
fn nothing_prints_a_secret() {
    let master = MasterKey::parse(crate::MASTER_KEY).unwrap();
    assert_eq!(format!("{master:?}"), "MasterKey(..)");
    let vault = format!("{:?}", *VAULT);
    assert_eq!(vault, format!("Vault {{ key_id: {:?}, .. }}", VAULT.key_id()));
    let made = VAULT.generate_wallet("w1", "tron", &mut Seeded(2));
    let sealed_key = made.sealed.as_ref().unwrap();
    assert_eq!(format!("{sealed_key:?}"), "SealedKey(..)");
    assert!(!format!("{made:?}").contains(sealed_key.as_str()));
    assert_eq!(format!("{:?}", key(&made)), "Sealed(SealedKey(..))");
    let (words, seed) = VAULT.generate_seed("s1", &mut Seeded(2));
    assert_eq!(format!("{words:?} {seed:?}"), "Words(..) SealedSeed(..)");
    assert_eq!(format!("{:?}", VAULT.open_branch("s1", &seed, Coin::Tron, 0).unwrap()), "Branch(..)");
    let sealed = VAULT.seal(b"whsec_1", &Binding::webhook_secret("m1"), &mut Seeded(1));
    assert_eq!(format!("{sealed:?}"), "Sealed(..)");
    assert_eq!(format!("{:?}", VAULT.seal_destination("tron", &[7; 20])), "SealedDestination(..)");
}

#[test]
fn the_vault_may_be_shared_and_keys_are_wiped() {
    fn shared<T: Send + Sync>() {}
    fn wiped<T: zeroize::ZeroizeOnDrop>() {}
    shared::<tidegate_vault::Vault>();
    wiped::<MasterKey>();
    wiped::<tidegate_vault::Vault>();
    shared::<tidegate_vault::Branch>();
    shared::<tidegate_vault::PublicBranch>();
    wiped::<tidegate_vault::Words>();
}

/// The formats never change: what is in somebody's database must open for ever. These texts were
/// made from the formulas in `subkey` and `seal` by another program (Python's `cryptography`).
#[test]
fn what_was_sealed_long_ago_still_opens() {
    let vault = unlock("8d1f6c2ab4e09357f8a1d3c5067be92f41d8ba637c0e95f2a6b81d34e7c9502a", "00112233445566778899aabbccddeeff");
    let golden: serde_json::Value = serde_json::from_str(include_str!("../vectors/vault_formats.json")).unwrap();
    let text = |field: &str| golden[field].as_str().unwrap();
    assert_eq!(vault.key_id(), text("key_id"));
    assert_eq!(vault.check_value(), text("check"));
    assert_eq!(vault.fingerprint(b"{}"), text("fingerprint"));
    let opened = vault.open(&Sealed::from_text(text("sealed")), &Binding::webhook_secret("m1"));
    assert_eq!(**opened.unwrap(), *b"whsec_1");
    let address = crate::address("7e5f4552091a69125d5dfcb7b8c2659029395bdf");
    let wallet = Wallet { id: "w1", network: "tron", address: &address };
    let key = SealedKey::from_text(text("wallet_key"));
    vault.verify_wallet(&wallet, &KeySource::Sealed(&key), text("tag")).unwrap();
    let seed = SealedSeed::from_text(text("seed"));
    assert_eq!(vault.words_match(&seed, "s1", text("seed_words"), ""), Ok(true));
    let combined = MasterKey::combine(text("part_1"), text("part_2")).unwrap();
    assert_eq!(*combined.to_hex(), text("combined"));
    let bytes = |field: &str| STANDARD.decode(text(field)).unwrap();
    let mut opener = BackupOpener::new(&vault, &bytes("backup_preamble"), b"header").unwrap();
    assert_eq!(opener.open_chunk(&bytes("backup_chunk_0"), false).unwrap(), b"first");
    assert_eq!(opener.open_chunk(&bytes("backup_chunk_1"), true).unwrap(), b"last");
    assert_eq!(vault.seal_destination("tron", &address).as_str(), text("destination"));
}

proptest! {
    #[test]
    fn any_secret_survives_sealing(secret: Vec<u8>, kind: String, parts: Vec<String>, seed: u64) {
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let binding = Binding::new(&kind, &parts);
        let sealed = VAULT.seal(&secret, &binding, &mut Seeded(seed));
        let stored = Sealed::from_text(sealed.as_str());
        prop_assert_eq!(&**VAULT.open(&stored, &binding).unwrap(), &secret);
    }

    #[test]
    fn no_other_text_opens(text in "(v1\\.)?([0-9a-f]{8}\\.)?.{0,200}") {
        let binding = Binding::webhook_secret("m1");
        prop_assert!(VAULT.open(&Sealed::from_text(&text), &binding).is_err());
        let ours = format!("v1.{}.{text}", VAULT.key_id());
        prop_assert!(VAULT.open(&Sealed::from_text(&ours), &binding).is_err());
        let destination = SealedDestination::from_text(ours);
        prop_assert_eq!(VAULT.open_destination("tron", &destination), None);
    }
}
