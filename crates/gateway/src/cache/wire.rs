//! Redis' protocol, as far as the cache speaks it: commands out, four kinds of replies in. The
//! first version of it (RESP2), which every Redis and every program like it understands.
//!
//! What comes in may be anything, so it is read up to named limits, and what is not a reply of the
//! kind that was asked for ends the connection. The text of an error is never passed on: Redis
//! repeats in it what it was sent, and that may be the password.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _};

/// The longest line of a reply. Errors are the longest that Redis sends.
const LINE_BYTES_MAX: u64 = 4_096;

/// The longest code of an error that is shown, such as `WRONGPASS`.
const CODE_BYTES_MAX: usize = 24;

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// `+OK` and the like.
    Done,
    /// `-CODE and a text`: the code alone, `ERR` where it has none.
    Refused(String),
    /// `:42`
    Number(i64),
    /// A text, or that there is none.
    Bytes(Option<Vec<u8>>),
}

/// Adds a command to what is to be sent.
pub(super) fn command(out: &mut Vec<u8>, parts: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", parts.len()).as_bytes());
    for part in parts {
        out.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
}

/// Reads one reply; a text of more than `bytes_max` bytes is none.
///
/// # Errors
/// `InvalidData` for what is no reply, `UnexpectedEof` where the connection ends, and whatever the
/// connection itself says.
pub(super) async fn reply(from: &mut (impl AsyncBufRead + Unpin + ?Sized), bytes_max: usize) -> io::Result<Reply> {
    let line = line(from).await?;
    let (kind, rest) = line.split_first().ok_or(io::ErrorKind::InvalidData)?;
    match kind {
        b'+' => Ok(Reply::Done),
        b'-' => Ok(Reply::Refused(code(rest))),
        b':' => number(rest).map(Reply::Number),
        b'$' => {
            let length = number(rest)?;
            if length == -1 {
                return Ok(Reply::Bytes(None));
            }
            let length = usize::try_from(length).ok().filter(|length| *length <= bytes_max).ok_or(io::ErrorKind::InvalidData)?;
            let mut bytes = vec![0; length];
            from.read_exact(&mut bytes).await?;
            let mut end = [0; 2];
            from.read_exact(&mut end).await?;
            if end == *b"\r\n" { Ok(Reply::Bytes(Some(bytes))) } else { Err(io::ErrorKind::InvalidData.into()) }
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// A line without its end.
async fn line(from: &mut (impl AsyncBufRead + Unpin + ?Sized)) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let read = from.take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
    match line.strip_suffix(b"\r\n") {
        Some(line) => Ok(line.to_vec()),
        None if read == 0 => Err(io::ErrorKind::UnexpectedEof.into()),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn number(text: &[u8]) -> io::Result<i64> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The first word of an error, if it is a code.
fn code(text: &[u8]) -> String {
    let word = text.split(|byte| *byte == b' ').next().unwrap_or_default();
    let is_code = !word.is_empty() && word.len() <= CODE_BYTES_MAX && word.iter().all(u8::is_ascii_uppercase);
    if is_code { String::from_utf8_lossy(word).into_owned() } else { "ERR".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_says_how_long_each_part_is() {
        let mut out = Vec::new();
        command(&mut out, &[b"SET", b"key", b"a\r\nb"]);
        assert_eq!(out, b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$4\r\na\r\nb\r\n");
    }

    #[tokio::test]
    async fn replies_are_read_and_nothing_else_is() {
        let table = [
            ("+OK\r\n", Some(Reply::Done)),
            (":-2\r\n", Some(Reply::Number(-2))),
            ("$5\r\nhello\r\n", Some(Reply::Bytes(Some(b"hello".to_vec())))),
            ("$0\r\n\r\n", Some(Reply::Bytes(Some(Vec::new())))),
            ("$-1\r\n", Some(Reply::Bytes(None))),
            ("-WRONGPASS invalid username-password pair\r\n", Some(Reply::Refused("WRONGPASS".to_owned()))),
            ("-ERR unknown command `AUTH`, with args beginning with: `hunter2`\r\n", Some(Reply::Refused("ERR".to_owned()))),
            ("-hunter2 is what you sent\r\n", Some(Reply::Refused("ERR".to_owned()))),
            ("-HUNTERTWOHUNTERTWOHUNTERTWO\r\n", Some(Reply::Refused("ERR".to_owned()))),
            // Longer than asked for, without an end, of another kind, not a number, not Redis.
            ("$6\r\nhello!\r\n", None),
            ("$999999999999\r\n", None),
            ("$5\r\nhello+OK\r\n", None),
            ("$5\r\nhel", None),
            ("$five\r\nhello\r\n", None),
            ("*1\r\n$2\r\nOK\r\n", None),
            (":1.5\r\n", None),
            ("+OK\n", None),
            ("\r\n", None),
            ("", None),
            ("HTTP/1.1 400 Bad Request\r\n\r\n", None),
        ];
        for (sent, expected) in table {
            assert_eq!(reply(&mut sent.as_bytes(), 5).await.ok(), expected, "{sent:?}");
        }
        let endless = vec![b'+'; 1 << 20];
        let mut left = endless.as_slice();
        assert_eq!(reply(&mut left, 5).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(endless.len() - left.len(), 4_096, "no more is read than a line may be long");
    }
}
