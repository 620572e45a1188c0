//! The master key, and the addresses that private keys give.

use tidegate_vault::{InvalidKey, MasterKey, MasterKeyError, OpenError, OsEntropy, Salt, SaltError, VerifyError, Wallet, key_id_of};

use crate::{OTHER, Seeded, VAULT, address, key, text, unlock, vectors};

#[test]
fn a_master_key_is_32_random_bytes_in_hex_or_base64() {
    let table = "
        5f3a91c07be244d81690fd2ba7c3e85e0b7d4496f1283acd60e59714bb02d8af    ok
        5F3A91C07BE244D81690FD2BA7C3E85E0B7D4496F1283ACD60E59714BB02D8AF    ok
        XzqRwHviRNgWkP0rp8PoXgt9RJbxKDrNYOWXFLsC2K8=                        ok
        XzqRwHviRNgWkP0rp8PoXgt9RJbxKDrNYOWXFLsC2K8                         ok
        XzqRwHviRNgWkP0rp8PoXgt9RJbxKDrNYOWXFLsC2A==                        malformed
        XzqRwHviRNgWkP0rp8PoXgt9RJbxKDrNYOWXFLsC2K9=                        malformed
        XzqRwHviRNgWkP0rp8PoXgt9RJbxKDrNYOWXFLsC2K8==                       malformed
        XzqRwHviRNgWkP0rp8PoXgt9RJbxKDrNYOWXFLsC2-8=                        malformed
        5f3a91c07be244d81690fd2ba7c3e85e0b7d4496f1283acd60e59714bb02d8      malformed
        5f3a91c07be244d81690fd2ba7c3e85e0b7d4496f1283acd60e59714bb02d8afaf  malformed
        0x5f3a91c07be244d81690fd2ba7c3e85e0b7d4496f1283acd60e59714bb02d8af  malformed
        0x5f3a91c07be244d81690fd2ba7c3e85e0b7d4496f1283acd60e59714bb02d8    malformed
        gf3a91c07be244d81690fd2ba7c3e85e0b7d4496f1283acd60e59714bb02d8af    malformed
        change-me                                                           malformed
        0000000000000000000000000000000000000000000000000000000000000000    weak
        ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff    weak
        AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=                        weak
        0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef    weak
        000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f    weak
        f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff000102030405060708090a0b0c0d0e0f    weak
        201f1e1d1c1b1a191817161514131211100f0e0d0c0b0a090807060504030201    weak
        5f3a91c07be244d81690fd2ba7c3e85e5f3a91c07be244d81690fd2ba7c3e85e    weak
        0102020301010302030102030201010203020103010203010203020103020301    weak
        Y29ycmVjdCBob3JzZSBiYXR0ZXJ5IHN0YXBsZSwgb2s=                        weak";
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (input, expected) = line.split_once(' ').unwrap();
        let found = match MasterKey::parse(input) {
            Ok(_) => "ok",
            Err(MasterKeyError::Empty) => "empty",
            Err(MasterKeyError::Malformed) => "malformed",
            Err(MasterKeyError::Weak) => "weak",
            Err(MasterKeyError::SameParts) => "same",
        };
        assert_eq!(found, expected.trim(), "{input}");
        if let Err(error) = MasterKey::parse(input) {
            assert!(!error.to_string().contains(input), "an error repeats the key");
            assert!(error.to_string().contains("tidegate key new"));
        }
    }
    assert_eq!(MasterKey::parse(" \n").unwrap_err(), MasterKeyError::Empty);
    let hex = MasterKey::parse("\tXzqRwHviRNgWkP0rp8PoXgt9RJbxKDrNYOWXFLsC2K8=\r\n").unwrap().to_hex();
    assert_eq!(*hex, crate::MASTER_KEY, "both forms are the same key, and white space is not of it");
}

#[test]
fn a_generated_master_key_is_a_good_one() {
    for seed in 0..200 {
        let hex = MasterKey::generate(&mut Seeded(seed)).to_hex();
        assert_eq!(MasterKey::parse(&hex).unwrap().to_hex(), hex);
    }
    let (one, two) = (MasterKey::generate(&mut OsEntropy), MasterKey::generate(&mut OsEntropy));
    assert_ne!(one.to_hex(), two.to_hex());
    MasterKey::parse(&one.to_hex()).unwrap();
}

#[test]
fn a_salt_is_16_to_64_bytes_of_text_or_hex() {
    let long = "x".repeat(65);
    for short_or_long in ["", "fifteen bytes..", "0011223344556", &long] {
        assert_eq!(Salt::parse(short_or_long).unwrap_err(), SaltError);
    }
    for text in ["sixteen bytes...", " 00112233445566778899AABBCCDDEEFF\n", "0x112233445566778899", &long[1..]] {
        let salt = Salt::parse(text).unwrap();
        assert_eq!(Salt::parse(&salt.to_hex()).unwrap(), salt, "{text}");
    }
    assert_eq!(Salt::parse("00112233445566778899AABBCCDDEEFF").unwrap().to_hex(), "00112233445566778899aabbccddeeff");
    let drawn = Salt::generate(&mut Seeded(7));
    assert_eq!(Salt::parse(&drawn.to_hex()).unwrap(), drawn);
}

#[test]
fn a_wrong_master_key_or_salt_is_told() {
    let stored = VAULT.check_value();
    assert!(VAULT.verify_check(&stored));
    assert!(unlock(crate::MASTER_KEY, "the salt of the tests").verify_check(&stored));
    assert!(!unlock(crate::MASTER_KEY, "the salt of the test.").verify_check(&stored));
    assert!(!OTHER.verify_check(&stored));
    for wrong in ["", "v1", &stored[..stored.len() - 1], &stored.to_uppercase()] {
        assert!(!VAULT.verify_check(wrong), "{wrong}");
    }
    assert_ne!(VAULT.key_id(), OTHER.key_id());
}

#[test]
fn private_keys_give_the_published_addresses() {
    let check = |private_key: &str, expected: &str| {
        let made = VAULT.import_wallet(private_key, "w", "tron", &mut Seeded(1)).unwrap();
        assert_eq!(made.address, address(expected), "{expected}");
        let wallet = Wallet { id: "w", network: "tron", address: &made.address };
        VAULT.verify_wallet(&wallet, &key(&made), &made.tag).unwrap();
    };
    for vector in vectors("key_to_address.json") {
        check(text(&vector, "private_key"), text(&vector, "tron_hex"));
        check(text(&vector, "private_key"), &text(&vector, "evm_checksum").to_lowercase());
    }
    for vector in vectors("bip39_bip44_tron_evm.json") {
        for derived in vector["tron"].as_array().unwrap() {
            check(text(derived, "private_key"), text(derived, "address_hex"));
        }
        for derived in vector["evm"].as_array().unwrap() {
            check(&format!(" 0x{}\n", text(derived, "private_key")), text(derived, "address"));
        }
    }
}

#[test]
fn what_is_no_private_key_is_refused() {
    let table = "
        0000000000000000000000000000000000000000000000000000000000000000     out of range
        fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141     out of range
        ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff     out of range
        fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364140     ok
        0x0000000000000000000000000000000000000000000000000000000000000001   ok
        0x0x00000000000000000000000000000000000000000000000000000000000001   malformed
        00000000000000000000000000000000000000000000000000000000000001       malformed
        000000000000000000000000000000000000000000000000000000000000000001   malformed
        g000000000000000000000000000000000000000000000000000000000000001     malformed
        0x                                                                   malformed";
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (input, expected) = line.split_once(' ').unwrap();
        let found = match VAULT.import_wallet(input, "w", "tron", &mut Seeded(1)) {
            Ok(_) => "ok",
            Err(InvalidKey::Malformed) => "malformed",
            Err(InvalidKey::OutOfRange) => "out of range",
        };
        assert_eq!(found, expected.trim(), "{input}");
    }
}

#[test]
fn a_generated_wallet_is_whole_and_nobody_elses() {
    let made = VAULT.generate_wallet("w1", "tron", &mut OsEntropy);
    let wallet = Wallet { id: "w1", network: "tron", address: &made.address };
    VAULT.verify_wallet(&wallet, &key(&made), &made.tag).unwrap();

    let again = VAULT.generate_wallet("w1", "tron", &mut OsEntropy);
    assert_ne!(made.address, again.address);
    assert_eq!(
        VAULT.verify_wallet(&wallet, &key(&again), &made.tag),
        Err(VerifyError::Key(OpenError::Refused)),
        "the key of another wallet"
    );
    assert_eq!(VAULT.verify_wallet(&wallet, &key(&made), &again.tag), Err(VerifyError::Tag));
}

#[test]
fn a_tag_holds_for_one_wallet_on_one_network_with_one_address() {
    let (here, there) = ([7; 20], [8; 20]);
    let wallet = Wallet { id: "w1", network: "tron", address: &here };
    let tag = VAULT.tag(&wallet);
    assert!(VAULT.verify_tag(&wallet, &tag));
    for other in [
        Wallet { id: "w2", ..wallet },
        Wallet { network: "ethereum", ..wallet },
        Wallet { address: &there, ..wallet },
        // The parts are framed, so moving a letter over a border makes another wallet.
        Wallet { id: "w1t", network: "ron", ..wallet },
    ] {
        assert!(!VAULT.verify_tag(&other, &tag), "{other:?}");
    }
    assert!(!OTHER.verify_tag(&wallet, &tag));
    for (at, _) in tag.char_indices() {
        let mut forged = tag.clone();
        forged.replace_range(at..=at, if &tag[at..=at] == "0" { "1" } else { "0" });
        assert!(!VAULT.verify_tag(&wallet, &forged), "{forged}");
    }
}

#[test]
fn a_rotation_takes_over_whole_wallets_only() {
    let made = VAULT.generate_wallet("w1", "tron", &mut Seeded(3));
    let wallet = Wallet { id: "w1", network: "tron", address: &made.address };
    let sealed = made.sealed.as_ref().unwrap();
    let adopted = OTHER.adopt_wallet(&VAULT, &wallet, sealed, &made.tag, &mut Seeded(4)).unwrap();
    let adopted_key = adopted.sealed.as_ref().unwrap();
    assert_eq!(adopted.address, made.address);
    assert_eq!(adopted_key.key_id(), Some(OTHER.key_id()));
    assert_eq!((key_id_of(&made.tag), key_id_of(&adopted.tag)), (Some(VAULT.key_id()), Some(OTHER.key_id())));
    OTHER.verify_wallet(&wallet, &key(&adopted), &adopted.tag).unwrap();
    VAULT.verify_wallet(&wallet, &key(&adopted), &made.tag).unwrap_err();

    let elsewhere = Wallet { id: "w2", ..wallet };
    for tag in [VAULT.tag(&elsewhere), OTHER.tag(&elsewhere), String::new(), "v1.00000000.".to_owned()] {
        for sealed in [sealed, adopted_key] {
            let refused = OTHER.adopt_wallet(&VAULT, &wallet, sealed, &tag, &mut Seeded(5));
            assert_eq!(refused.unwrap_err(), VerifyError::Tag, "{tag}");
        }
    }
    let others = VAULT.generate_wallet("w1", "tron", &mut Seeded(6)).sealed.unwrap();
    let refused = OTHER.adopt_wallet(&VAULT, &wallet, &others, &made.tag, &mut Seeded(5));
    assert_eq!(refused.unwrap_err(), VerifyError::Key(OpenError::Refused));
}

#[test]
fn a_rotation_can_be_done_twice() {
    let made = VAULT.generate_wallet("w1", "tron", &mut Seeded(3));
    let wallet = Wallet { id: "w1", network: "tron", address: &made.address };
    let adopted = OTHER.adopt_wallet(&VAULT, &wallet, made.sealed.as_ref().unwrap(), &made.tag, &mut Seeded(4)).unwrap();
    // Even if it stopped between key and tag.
    for tag in [&made.tag, &adopted.tag] {
        let again = OTHER.adopt_wallet(&VAULT, &wallet, adopted.sealed.as_ref().unwrap(), tag, &mut Seeded(5)).unwrap();
        assert_eq!((again.address, &again.sealed, &again.tag), (adopted.address, &adopted.sealed, &adopted.tag));
    }
    // What is under the new key is checked all the same.
    let others = OTHER.generate_wallet("w1", "tron", &mut Seeded(6)).sealed.unwrap();
    let refused = OTHER.adopt_wallet(&VAULT, &wallet, &others, &adopted.tag, &mut Seeded(5));
    assert_eq!(refused.unwrap_err(), VerifyError::Key(OpenError::Refused));
}

#[test]
fn a_tag_is_taken_over_by_itself() {
    let wallet = Wallet { id: "w1", network: "tron", address: &[7; 20] };
    let made = VAULT.watch_wallet("w1", "tron", [7; 20]);
    assert_eq!((&made.sealed, &made.tag), (&None, &VAULT.tag(&wallet)));
    let adopted = OTHER.adopt_tag(&VAULT, &wallet, &made.tag).unwrap();
    assert_eq!(adopted, OTHER.tag(&wallet));
    assert_eq!(OTHER.adopt_tag(&VAULT, &wallet, &adopted).unwrap(), adopted);
    let other = Wallet { network: "nile", ..wallet };
    for tag in [&made.tag, &adopted] {
        assert_eq!(OTHER.adopt_tag(&VAULT, &other, tag), Err(VerifyError::Tag));
    }
    for text in ["", "v1", "v2.1f9bb896.00", "v1.1f9bb89.00", "v1.1f9bb8961.00", "v1.1f9bb89g.00"] {
        assert_eq!(key_id_of(text), None, "{text}");
    }
}

#[test]
fn a_master_key_of_two_parts_needs_both() {
    let (a, b) = (crate::MASTER_KEY, "x96jkcB74kTYFpD9K6fD6F4LfUSW8Sg6zWDllxS7Atg");
    let combined = MasterKey::combine(a, b).unwrap().to_hex();
    assert_eq!(MasterKey::combine(b, a).unwrap().to_hex(), combined, "whichever comes first");
    MasterKey::parse(&combined).unwrap();
    for part in [a, b] {
        assert_ne!(MasterKey::parse(part).unwrap().to_hex(), combined);
    }
    let c = MasterKey::generate(&mut Seeded(1)).to_hex();
    assert_ne!(MasterKey::combine(a, &c).unwrap().to_hex(), combined);
    assert_ne!(MasterKey::combine(&c, b).unwrap().to_hex(), combined);

    let (weak, same) = ("0".repeat(64), "XzqRwHviRNgWkP0rp8PoXgt9RJbxKDrNYOWXFLsC2K8=");
    let table = [
        ("", MasterKeyError::Empty),
        (" \n", MasterKeyError::Empty),
        ("change-me", MasterKeyError::Malformed),
        (&a[1..], MasterKeyError::Malformed),
        (&weak, MasterKeyError::Weak),
        (a, MasterKeyError::SameParts),
        (&a.to_uppercase(), MasterKeyError::SameParts),
        (same, MasterKeyError::SameParts),
    ];
    for (part, expected) in table {
        assert_eq!(MasterKey::combine(a, part).unwrap_err(), expected, "{part}");
        assert_eq!(MasterKey::combine(part, a).unwrap_err(), expected, "{part}");
    }
    for seed in 0..100 {
        let (a, b) = MasterKey::generate_parts(&mut Seeded(seed));
        assert_ne!(a, b);
        MasterKey::combine(&a, &b).unwrap();
    }
}
