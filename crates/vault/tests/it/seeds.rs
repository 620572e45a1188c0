//! Seeds: published words, the wallets that come from them, and what is refused.

use serde_json::Value;
use tidegate_vault::{
    AccountXpub, Action, ChainId, Coin, DeriveError, EvmTransaction, Fees, InvalidWords, InvalidXpub, KeySource, OpenError, OsEntropy,
    Purpose, Refusal, SealedSeed, UnsignedTransaction, VerifyError, Wallet,
};

use crate::sealing::altered;
use crate::{OTHER, Seeded, VAULT, address, key, text, vectors};

const WORDS: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
const WORDS_24: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon \
    abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon art";

fn import(words: &str, passphrase: &str) -> SealedSeed {
    VAULT.import_seed(words, passphrase, "s1", &mut Seeded(1)).unwrap()
}

fn source(sealed: &SealedSeed, coin: Coin, index: u32) -> KeySource<'_> {
    KeySource::Seed { sealed, seed_id: "s1", coin, account: 0, index }
}

/// The wallets of a vector for a coin: index, private key and address.
fn derived(vector: &Value, field: &str) -> Vec<(u32, String, [u8; 20])> {
    let read = |wallet: &Value| {
        let index = text(wallet, "path").rsplit_once('/').unwrap().1.parse().unwrap();
        let shown = wallet["address_hex"].as_str().unwrap_or_else(|| text(wallet, "address"));
        (index, text(wallet, "private_key").to_owned(), address(shown))
    };
    vector[field].as_array().unwrap().iter().map(read).collect()
}

#[test]
fn published_words_give_the_published_keys_and_addresses() {
    for vector in vectors("bip39_bip44_tron_evm.json") {
        let sealed = import(text(&vector, "mnemonic"), text(&vector, "passphrase"));
        for (coin, field) in [(Coin::Tron, "tron"), (Coin::Evm, "evm")] {
            let branch = VAULT.open_branch("s1", &sealed, coin, 0).unwrap();
            let xpub = VAULT.account_xpub("s1", &sealed, coin, 0).unwrap();
            assert_eq!(xpub, text(&vector, &format!("{field}_account_xpub")));
            let public = AccountXpub::parse(&xpub).unwrap();
            assert_eq!(public.to_text(), xpub);
            for (index, private_key, expected) in derived(&vector, field) {
                let made = branch.derive(&VAULT, index, "w1", field).unwrap();
                assert_eq!((made.address, &made.sealed), (expected, &None), "{field} {index}");
                assert_eq!(public.branch().unwrap().address(index), Ok(expected), "without the private key");
                let wallet = Wallet { id: "w1", network: field, address: &made.address };
                let source = source(&sealed, coin, index);
                VAULT.verify_wallet(&wallet, &source, &made.tag).unwrap();
                branch.verify(&VAULT, &wallet, index, &made.tag).unwrap();
                assert_eq!(*VAULT.export_wallet(&wallet, &source, &made.tag).unwrap(), private_key);
            }
        }
        assert_eq!(AccountXpub::parse(text(&vector, "tron_account_xprv")).unwrap_err(), InvalidXpub::Private);
    }
}

#[test]
fn a_wallet_with_its_own_key_is_exported_too() {
    for vector in vectors("key_to_address.json") {
        let private_key = text(&vector, "private_key");
        let made = VAULT.import_wallet(private_key, "w1", "tron", &mut Seeded(1)).unwrap();
        let wallet = Wallet { id: "w1", network: "tron", address: &made.address };
        assert_eq!(*VAULT.export_wallet(&wallet, &key(&made), &made.tag).unwrap(), private_key.trim_start_matches("0x").to_lowercase());
        assert_eq!(VAULT.export_wallet(&wallet, &key(&made), "").unwrap_err(), VerifyError::Tag);
        let other = Wallet { id: "w2", ..wallet };
        let refused = VAULT.export_wallet(&other, &key(&made), &VAULT.tag(&other));
        assert_eq!(refused.unwrap_err(), VerifyError::Key(OpenError::Refused));
    }
}

#[test]
fn words_made_here_are_24_and_lead_back() {
    let (words, sealed) = VAULT.generate_seed("s1", &mut OsEntropy);
    assert_eq!(words.as_str().split(' ').count(), 24);
    assert_eq!(VAULT.words_match(&sealed, "s1", words.as_str(), ""), Ok(true));
    assert_eq!(VAULT.words_match(&sealed, "s1", words.as_str(), "x"), Ok(false));
    assert_eq!(VAULT.words_match(&sealed, "s1", WORDS_24, ""), Ok(false));
    assert_eq!(VAULT.words_match(&sealed, "s1", "no words at all", ""), Ok(false));
    assert_eq!(VAULT.words_match(&sealed, "s2", words.as_str(), ""), Err(OpenError::Refused));

    let again = import(words.as_str(), "");
    let branch = |sealed| VAULT.open_branch("s1", sealed, Coin::Tron, 7).unwrap().address(3);
    assert_eq!(branch(&again), branch(&sealed));
    let (others, _) = VAULT.generate_seed("s1", &mut OsEntropy);
    assert_ne!(words.as_str(), others.as_str());
    // Replayed, one draw gives one seed.
    let replayed = || VAULT.generate_seed("s1", &mut Seeded(9)).0.as_str().to_owned();
    assert_eq!(replayed(), replayed());
}

#[test]
fn words_are_read_as_people_write_them() {
    let sealed = import(WORDS, "");
    let spread = WORDS.replace(' ', "\n\t ").to_uppercase();
    assert_eq!(VAULT.words_match(&sealed, "s1", &format!("  {spread}\r\n"), ""), Ok(true));
    // NFKD: the same passphrase, composed and decomposed, and as compatibility letters.
    let sealed = import(WORDS, "caf\u{e9} \u{fb01}");
    assert_eq!(VAULT.words_match(&sealed, "s1", WORDS, "cafe\u{301} fi"), Ok(true));
    assert_eq!(VAULT.words_match(&sealed, "s1", WORDS, "cafe fi"), Ok(false));
}

#[test]
fn what_is_not_the_words_of_a_seed_is_refused() {
    // 12 to 24 words of zeros, whose checksums are known; other lengths of theirs are not words.
    let table = [(12, "about"), (15, "address"), (18, "agent"), (21, "admit"), (24, "art")];
    for (count, last) in table {
        let zeros = "abandon ".repeat(count - 1);
        VAULT.import_seed(&format!("{zeros}{last}"), "", "s1", &mut Seeded(1)).unwrap();
        let refused = |words: &str| VAULT.import_seed(words, "", "s1", &mut Seeded(1)).unwrap_err();
        assert_eq!(refused(&format!("{zeros}abandon")), InvalidWords::Checksum, "{count}");
        assert_eq!(refused(&zeros), InvalidWords::Count(count - 1));
        assert_eq!(refused(&format!("{zeros}{last} {last}")), InvalidWords::Count(count + 1));
        for position in 1..=count {
            let mut words: Vec<&str> = zeros.split_whitespace().chain([last]).collect();
            words[position - 1] = "secrett";
            let error = refused(&words.join(" "));
            assert_eq!(error, InvalidWords::Unknown { position });
            assert!(!error.to_string().contains("secrett") && error.to_string().contains(&position.to_string()));
        }
    }
    assert_eq!(VAULT.import_seed("", "", "s1", &mut Seeded(1)), Err(InvalidWords::Count(0)));
    let swapped = "winner legal thank year wave sausage worth useful legal winner thank yellow";
    assert_eq!(VAULT.import_seed(swapped, "", "s1", &mut Seeded(1)), Err(InvalidWords::Checksum));
}

#[test]
fn the_list_of_words_is_the_published_one() {
    use sha2::Digest as _;
    let list = include_bytes!("../../src/english.txt");
    assert_eq!(hex::encode(sha2::Sha256::digest(list)), "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda");
}

#[test]
fn an_altered_seed_does_not_open() {
    let sealed = import(WORDS, "");
    for text in altered(sealed.as_str()) {
        let altered = SealedSeed::from_text(&text);
        assert!(VAULT.open_branch("s1", &altered, Coin::Tron, 0).is_err(), "{text}");
    }
    assert_eq!(VAULT.open_branch("s2", &sealed, Coin::Tron, 0).unwrap_err(), OpenError::Refused);
    let cut = SealedSeed::from_text(&sealed.as_str()[..60]);
    assert_eq!(VAULT.open_branch("s1", &cut, Coin::Tron, 0).unwrap_err(), OpenError::Malformed);
    assert!(matches!(OTHER.open_branch("s1", &sealed, Coin::Tron, 0), Err(OpenError::OtherKey { .. })));
}

#[test]
fn one_kind_of_key_does_not_pass_for_another() {
    let sealed = import(WORDS, "");
    let branch = VAULT.open_branch("s1", &sealed, Coin::Tron, 0).unwrap();
    let (made, next) = (branch.derive(&VAULT, 0, "w1", "tron").unwrap(), branch.address(1).unwrap());
    let wallet = Wallet { id: "w1", network: "tron", address: &made.address };
    let verify = |source: &KeySource<'_>| VAULT.verify_wallet(&wallet, source, &made.tag).unwrap_err();

    // Another place in the same seed, another seed, and no seed of ours.
    let moved = verify(&source(&sealed, Coin::Tron, 1));
    assert_eq!(moved, VerifyError::OtherAddress { stored: made.address, found: next });
    for shown in [made.address, next] {
        assert!(moved.to_string().contains(&hex::encode(shown)), "{moved}");
    }
    assert!(matches!(verify(&source(&sealed, Coin::Evm, 0)), VerifyError::OtherAddress { .. }));
    let far = KeySource::Seed { sealed: &sealed, seed_id: "s1", coin: Coin::Tron, account: 1, index: 0 };
    assert!(matches!(verify(&far), VerifyError::OtherAddress { .. }));
    let strange = import(WORDS_24, "");
    assert!(matches!(verify(&source(&strange, Coin::Tron, 0)), VerifyError::OtherAddress { .. }));
    let renamed = KeySource::Seed { sealed: &sealed, seed_id: "s2", coin: Coin::Tron, account: 0, index: 0 };
    assert_eq!(verify(&renamed), VerifyError::Key(OpenError::Refused));

    // A key of its own under the same id and address, passed off as a seed, and the reverse.
    let source_0 = source(&sealed, Coin::Tron, 0);
    let private_key = VAULT.export_wallet(&wallet, &source_0, &made.tag).unwrap();
    let own = VAULT.import_wallet(&private_key, "w1", "tron", &mut Seeded(2)).unwrap();
    assert_eq!(own.address, made.address);
    VAULT.verify_wallet(&wallet, &key(&own), &made.tag).unwrap();
    let as_seed = SealedSeed::from_text(own.sealed.unwrap().as_str());
    assert_eq!(verify(&source(&as_seed, Coin::Tron, 0)), VerifyError::Key(OpenError::Malformed));
    let as_key = tidegate_vault::SealedKey::from_text(sealed.as_str());
    assert_eq!(verify(&KeySource::Sealed(&as_key)), VerifyError::Key(OpenError::Malformed));
    let binding = tidegate_vault::Binding::new("s1", &[]);
    let as_secret = tidegate_vault::Sealed::from_text(sealed.as_str());
    assert_eq!(VAULT.open(&as_secret, &binding), Err(OpenError::Refused));
    let secret = VAULT.seal(&[7; 64], &binding, &mut Seeded(3));
    assert_eq!(verify(&source(&SealedSeed::from_text(secret.as_str()), Coin::Tron, 0)), VerifyError::Key(OpenError::Refused));

    // The branch says the same.
    assert_eq!(branch.verify(&VAULT, &wallet, 1, &made.tag), Err(VerifyError::OtherAddress { stored: made.address, found: next }));
    assert_eq!(branch.verify(&VAULT, &Wallet { id: "w2", ..wallet }, 0, &made.tag), Err(VerifyError::Tag));
    assert_eq!(branch.verify(&OTHER, &wallet, 0, &made.tag), Err(VerifyError::Tag));
    branch.verify(&VAULT, &wallet, 0, &made.tag).unwrap();
}

#[test]
fn a_seed_signs_what_its_key_signs() {
    let sealed = import(WORDS, "");
    let made = VAULT.open_branch("s1", &sealed, Coin::Evm, 0).unwrap().derive(&VAULT, 2, "w1", "evm").unwrap();
    let wallet = Wallet { id: "w1", network: "evm", address: &made.address };
    let private_key = VAULT.export_wallet(&wallet, &source(&sealed, Coin::Evm, 2), &made.tag).unwrap();
    let own = VAULT.import_wallet(&private_key, "w1", "evm", &mut Seeded(2)).unwrap();

    let to = [8; 20];
    let fees = Fees::Legacy { gas_price: 1 };
    let evm = EvmTransaction { chain_id: 1, nonce: 0, to, value: 5, gas_limit: 21_000, fees, data: vec![] };
    let transaction = UnsignedTransaction::Evm(evm);
    let ours = Wallet { id: "w2", network: "evm", address: &to };
    let tag = VAULT.tag(&ours);
    let action = Action::FundFee { to: ours, tag: &tag, amount_max: 5 };
    let purpose = Purpose { chain: ChainId::Evm(1), fee_max: 21_000, action };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let sign = |source: &KeySource<'_>| runtime.block_on(VAULT.sign(&wallet, source, &transaction, &purpose));

    let signed = sign(&source(&sealed, Coin::Evm, 2)).unwrap();
    assert_eq!(signed, sign(&key(&own)).unwrap());
    for elsewhere in [source(&sealed, Coin::Evm, 3), source(&sealed, Coin::Tron, 2)] {
        assert!(matches!(sign(&elsewhere), Err(Refusal::Key(VerifyError::OtherAddress { .. }))));
    }
    let renamed = KeySource::Seed { sealed: &sealed, seed_id: "s2", coin: Coin::Evm, account: 0, index: 2 };
    assert_eq!(sign(&renamed), Err(Refusal::Key(VerifyError::Key(OpenError::Refused))));
}

#[test]
fn accounts_and_wallets_end_below_two_to_the_31() {
    const END: u32 = 1 << 31;
    let sealed = import(WORDS, "");
    let branch = VAULT.open_branch("s1", &sealed, Coin::Tron, END - 1).unwrap();
    branch.address(END - 1).unwrap();
    let public = AccountXpub::parse(&VAULT.account_xpub("s1", &sealed, Coin::Tron, END - 1).unwrap()).unwrap().branch().unwrap();
    assert_eq!(public.address(5), branch.address(5));
    for beyond in [END, END + 1, u32::MAX] {
        let out_of_range = DeriveError::OutOfRange(beyond);
        assert_eq!(branch.address(beyond), Err(out_of_range));
        assert_eq!(branch.derive(&VAULT, beyond, "w1", "tron").unwrap_err(), out_of_range);
        assert_eq!(public.address(beyond), Err(out_of_range));
        assert_eq!(VAULT.open_branch("s1", &sealed, Coin::Tron, beyond).unwrap_err(), OpenError::Derive(out_of_range));
        assert_eq!(VAULT.account_xpub("s1", &sealed, Coin::Tron, beyond).unwrap_err(), OpenError::Derive(out_of_range));
        let wallet = Wallet { id: "w1", network: "tron", address: &[7; 20] };
        let verified = VAULT.verify_wallet(&wallet, &source(&sealed, Coin::Tron, beyond), &VAULT.tag(&wallet));
        assert_eq!(verified, Err(VerifyError::Key(OpenError::Derive(out_of_range))));
    }
}

#[test]
fn a_seed_is_taken_over_once() {
    let sealed = import(WORDS, "TREZOR");
    let adopted = OTHER.adopt_seed(&VAULT, "s1", &sealed, &mut Seeded(2)).unwrap();
    assert_eq!(adopted.key_id(), Some(OTHER.key_id()));
    assert_eq!(OTHER.words_match(&adopted, "s1", WORDS, "TREZOR"), Ok(true));
    assert_eq!(OTHER.adopt_seed(&VAULT, "s1", &adopted, &mut Seeded(3)).unwrap(), adopted);
    for text in [&sealed, &adopted] {
        assert_eq!(OTHER.adopt_seed(&VAULT, "s2", text, &mut Seeded(3)), Err(OpenError::Refused));
    }
    let malformed = SealedSeed::from_text(format!("v1.{}.", OTHER.key_id()));
    assert_eq!(OTHER.adopt_seed(&VAULT, "s1", &malformed, &mut Seeded(3)), Err(OpenError::Malformed));
    // Its wallets need a new tag, and nothing else.
    let made = VAULT.open_branch("s1", &sealed, Coin::Evm, 0).unwrap().derive(&VAULT, 4, "w1", "evm").unwrap();
    let wallet = Wallet { id: "w1", network: "evm", address: &made.address };
    let tag = OTHER.adopt_tag(&VAULT, &wallet, &made.tag).unwrap();
    OTHER.verify_wallet(&wallet, &source(&adopted, Coin::Evm, 4), &tag).unwrap();
}
