//! What is said to people at a terminal, and asked of them.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::Path;

use crate::start::Sorry;

/// The one place that speaks on stderr.
pub(super) fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "tidegate: {text}");
}

/// The one place that speaks on stdout. A closed pipe is nobody's failure.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Asks before something that cannot be taken back.
pub(super) fn confirm(yes: bool, question: &str, word: &str) -> Result<(), Sorry> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Sorry(format!("{question} Say --yes to do it without being asked.")));
    }
    let _ = write!(std::io::stderr(), "{question}\nType \"{word}\" to go on: ");
    let mut typed = String::new();
    std::io::stdin().read_line(&mut typed)?;
    if typed.trim() == word { Ok(()) } else { Err(Sorry::new("nothing was done")) }
}

/// A bar on stderr, where somebody looks.
pub(super) fn bar(total: u64) -> indicatif::ProgressBar {
    let bar = if std::io::stderr().is_terminal() { indicatif::ProgressBar::new(total) } else { indicatif::ProgressBar::hidden() };
    if let Ok(style) = indicatif::ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} {eta}") {
        bar.set_style(style);
    }
    bar
}

/// A secret from a file or from stdin, never from an argument.
pub(super) fn read_secret(file: Option<&Path>) -> Result<String, Sorry> {
    const MAX: u64 = 4_096;
    let mut text = String::new();
    match file {
        Some(path) => {
            std::fs::File::open(path).map_err(|error| Sorry(format!("{}: {error}", path.display())))?.take(MAX).read_to_string(&mut text)?
        }
        None => std::io::stdin().take(MAX).read_to_string(&mut text)?,
    };
    Ok(text)
}
