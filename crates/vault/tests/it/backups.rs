//! Backups: what was sealed comes back whole and in order, or not at all.

use proptest::prelude::*;
use tidegate_vault::{BACKUP_OVERHEAD_BYTES, BACKUP_PREAMBLE_BYTES, BackupOpener, BackupSealer, OpenError, OsEntropy};

use crate::{OTHER, Seeded, VAULT};

const HEADER: &[u8] = b"tidegate backup, salt 00112233";

/// The preamble and the sealed chunks of a backup.
fn sealed(chunks: &[&[u8]]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let (mut sealer, preamble) = BackupSealer::new(&VAULT, HEADER, &mut Seeded(1));
    let last = chunks.len() - 1;
    let chunks = chunks.iter().enumerate().map(|(at, chunk)| sealer.seal_chunk(chunk, at == last)).collect();
    (preamble, chunks)
}

/// Opens it as a program does that reads to the end of a file.
fn opened(preamble: &[u8], header: &[u8], chunks: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, OpenError> {
    let mut opener = BackupOpener::new(&VAULT, preamble, header)?;
    let last = chunks.len().wrapping_sub(1);
    let plain = chunks.iter().enumerate().map(|(at, chunk)| opener.open_chunk(chunk, at == last)).collect::<Result<_, _>>()?;
    opener.is_whole().then_some(plain).ok_or(OpenError::Refused)
}

#[test]
fn a_backup_comes_back_whole() {
    for chunks in [vec![b"".as_slice()], vec![b"one"], vec![b"one", b"two", b"three"], vec![b"one", b""], vec![&[7; 1 << 20], b"x"]] {
        let (preamble, boxed) = sealed(&chunks);
        assert_eq!(preamble.len(), BACKUP_PREAMBLE_BYTES);
        for (plain, boxed) in chunks.iter().zip(&boxed) {
            assert_eq!(boxed.len(), plain.len() + BACKUP_OVERHEAD_BYTES);
        }
        assert_eq!(opened(&preamble, HEADER, &boxed).unwrap(), chunks);
    }
}

#[test]
fn a_backup_that_is_not_whole_does_not_open() {
    let (preamble, chunks) = sealed(&[b"aaaa", b"bbbb", b"cccc", b"dddd"]);
    // The same contents under other random bytes, and a backup that ends where this one goes on.
    let (mut sealer, other_preamble) = BackupSealer::new(&VAULT, HEADER, &mut Seeded(2));
    let other: Vec<_> =
        [b"aaaa", b"bbbb", b"cccc", b"dddd"].into_iter().zip(1..).map(|(chunk, n)| sealer.seal_chunk(chunk, n == 4)).collect();
    let (_, short) = sealed(&[b"aaaa", b"bbbb"]);
    let chunk = |at: usize| chunks[at].clone();
    let table = [
        ("nothing at all", vec![]),
        ("its end is missing", vec![chunk(0), chunk(1), chunk(2)]),
        ("its beginning is missing", vec![chunk(1), chunk(2), chunk(3)]),
        ("its middle is missing", vec![chunk(0), chunk(1), chunk(3)]),
        ("only its end", vec![chunk(3)]),
        ("two are swapped", vec![chunk(0), chunk(2), chunk(1), chunk(3)]),
        ("one is twice", vec![chunk(0), chunk(1), chunk(1), chunk(2), chunk(3)]),
        ("its end is twice", vec![chunk(0), chunk(1), chunk(2), chunk(3), chunk(3)]),
        ("one more follows", vec![chunk(0), chunk(1), chunk(2), chunk(3), chunk(0)]),
        ("an empty one follows", vec![chunk(0), chunk(1), chunk(2), chunk(3), vec![]]),
        ("one is another backup's", vec![chunk(0), other[1].clone(), chunk(2), chunk(3)]),
        ("all are another backup's", other.clone()),
        ("two chunks in one", vec![[chunk(0), chunk(1)].concat(), chunk(2), chunk(3)]),
        ("the last loses a byte", vec![chunk(0), chunk(1), chunk(2), chunk(3)[..19].to_vec()]),
        ("the last gains a byte", vec![chunk(0), chunk(1), chunk(2), [chunk(3), vec![0]].concat()]),
    ];
    for (what, chunks) in table {
        assert_eq!(opened(&preamble, HEADER, &chunks), Err(OpenError::Refused), "{what}");
    }
    assert!(opened(&other_preamble, HEADER, &other).is_ok());
    // Under the same random bytes, which happens in this test alone, the end still is the end.
    assert_eq!(opened(&preamble, HEADER, &[short[0].clone(), short[1].clone(), chunk(2), chunk(3)]), Err(OpenError::Refused));
}

#[test]
fn no_byte_of_a_backup_may_change() {
    let (preamble, chunks) = sealed(&[b"aaaa", b"bbbb"]);
    for at in 0..preamble.len() {
        let mut flipped = preamble.clone();
        flipped[at] ^= 1;
        opened(&flipped, HEADER, &chunks).unwrap_err();
        opened(&preamble[..at], HEADER, &chunks).unwrap_err();
    }
    for at in 0..HEADER.len() {
        let mut flipped = HEADER.to_vec();
        flipped[at] ^= 1;
        assert_eq!(opened(&preamble, &flipped, &chunks), Err(OpenError::Refused));
        assert_eq!(opened(&preamble, &HEADER[..at], &chunks), Err(OpenError::Refused));
    }
    for (which, chunk) in chunks.iter().enumerate() {
        for at in 0..chunk.len() {
            let mut flipped = chunks.clone();
            flipped[which][at] ^= 1;
            assert_eq!(opened(&preamble, HEADER, &flipped), Err(OpenError::Refused));
            let mut cut = chunks.clone();
            cut[which].truncate(at);
            assert_eq!(opened(&preamble, HEADER, &cut), Err(OpenError::Refused));
        }
    }
    assert_eq!(opened(&[preamble.as_slice(), b"x"].concat(), HEADER, &chunks), Err(OpenError::Malformed));
}

#[test]
fn a_chunk_that_failed_cannot_be_left_out() {
    let (preamble, chunks) = sealed(&[b"aaaa", b"bbbb", b"cccc"]);
    let mut opener = BackupOpener::new(&VAULT, &preamble, HEADER).unwrap();
    assert_eq!(opener.open_chunk(&chunks[0], false).unwrap(), b"aaaa");
    assert_eq!(opener.open_chunk(b"not this one", false), Err(OpenError::Refused));
    assert_eq!(opener.open_chunk(&chunks[2], true), Err(OpenError::Refused));
    assert_eq!(opener.open_chunk(&chunks[1], true), Err(OpenError::Refused));
    assert_eq!(opener.open_chunk(&chunks[1], false).unwrap(), b"bbbb");
    assert!(!opener.is_whole());
    assert_eq!(opener.open_chunk(&chunks[2], true).unwrap(), b"cccc");
    assert!(opener.is_whole());
}

#[test]
fn a_backup_of_another_key_is_told() {
    let (preamble, _) = sealed(&[b"aaaa"]);
    let told = BackupOpener::new(&OTHER, &preamble, HEADER).unwrap_err();
    assert_eq!(told, OpenError::OtherKey { sealed_by: VAULT.key_id().to_owned(), unlocked_with: OTHER.key_id().to_owned() });
    // Whoever writes the other key's name over it gains nothing.
    let mut renamed = preamble;
    renamed[3..11].copy_from_slice(OTHER.key_id().as_bytes());
    let (_, chunks) = sealed(&[b"aaaa"]);
    let mut opener = BackupOpener::new(&OTHER, &renamed, HEADER).unwrap();
    assert_eq!(opener.open_chunk(&chunks[0], true), Err(OpenError::Refused));
}

#[test]
fn two_backups_have_nothing_in_common() {
    let boxed = || {
        let (mut sealer, preamble) = BackupSealer::new(&VAULT, HEADER, &mut OsEntropy);
        (preamble, sealer.seal_chunk(b"the same bytes in both", false), sealer.seal_chunk(b"the same bytes in both", true))
    };
    let (one, two) = (boxed(), boxed());
    assert_ne!(one.0, two.0);
    assert_ne!(one.1, two.1);
    assert_ne!(one.1, one.2);
    let (sealer, preamble) = BackupSealer::new(&VAULT, HEADER, &mut Seeded(1));
    let opener = BackupOpener::new(&VAULT, &preamble, HEADER).unwrap();
    assert_eq!(format!("{sealer:?} {opener:?}"), "BackupSealer(..) BackupOpener(..)");
}

proptest! {
    #[test]
    fn any_backup_survives(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 1..8), header: Vec<u8>, seed: u64) {
        let (mut sealer, preamble) = BackupSealer::new(&VAULT, &header, &mut Seeded(seed));
        let last = chunks.len() - 1;
        let boxed: Vec<_> = chunks.iter().enumerate().map(|(at, chunk)| sealer.seal_chunk(chunk, at == last)).collect();
        prop_assert_eq!(opened(&preamble, &header, &boxed), Ok(chunks));
        for length in 0..boxed.len() {
            prop_assert_eq!(opened(&preamble, &header, &boxed[..length]), Err(OpenError::Refused));
        }
    }
}
