//! Style as a test: what rustfmt and clippy cannot see, and documents that must move together with
//! the code. Reads the tree and nothing else; each test lists everything that is wrong at once.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// rustfmt keeps code within 140 columns, but leaves alone what it cannot break. The insides of text
/// literals are not counted: a sentence or a statement is in one piece, to be searched for.
const LINE_CHARS_MAX: usize = 160;

/// Names that say nothing about what a file is for.
const EMPTY_NAMES: [&str; 6] = ["utils", "common", "helpers", "manager", "types", "models"];

/// Where money and keys are: no float there, not even in a comment's example.
const NO_FLOATS: [&str; 5] =
    ["crates/rules/", "crates/vault/", "crates/gateway/src/store/", "crates/gateway/src/orders.rs", "crates/gateway/src/follow.rs"];

/// What has no place in the sources, and the files that may have it all the same.
const LEFT_BEHIND: [(&str, &[&str]); 4] =
    [("todo!", &[]), ("dbg!", &[]), ("println!", &["crates/vault/src/entropy.rs"]), ("eprintln!", &["crates/vault/src/entropy.rs"])];

/// Endings of files that are text and written by people.
const TEXT_ENDINGS: [&str; 14] = ["rs", "md", "toml", "sql", "html", "css", "js", "mjs", "sh", "py", "sol", "yml", "yaml", "txt"];

/// A file of the tree: its path from the root, with `/`, and its text.
struct File {
    path: String,
    text: String,
}

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap_or(root)
}

/// Every text file that belongs to the project: not what is built, installed or run beside it.
fn files() -> Vec<File> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let hidden = name.starts_with('.') && name != ".ci";
            if entry.file_type().unwrap().is_dir() {
                if !hidden && !matches!(name.as_str(), "target" | "node_modules" | "artifacts") {
                    folders.push(path);
                }
                continue;
            }
            let ending = path.extension().map_or("", |ending| ending.to_str().unwrap_or(""));
            let script = ending.is_empty() && folder != root;
            if !(TEXT_ENDINGS.contains(&ending) || script || name == "justfile") {
                continue;
            }
            let Ok(text) = fs::read_to_string(&path) else { continue };
            let path = path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
            found.push(File { path, text });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 100, "only {} files found: is this the project's root?", found.len());
    found
}

fn rust() -> Vec<File> {
    files().into_iter().filter(|file| file.path.ends_with(".rs")).collect()
}

fn sources() -> Vec<File> {
    rust().into_iter().filter(|file| file.path.contains("/src/")).collect()
}

fn document(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[track_caller]
fn none(problems: &[String]) {
    assert!(problems.is_empty(), "{} to mend:\n  {}\n", problems.len(), problems.join("\n  "));
}

/// Rust without the insides of its text literals, line by line. A literal may go over many lines.
fn without_literals(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let literal = if rest.starts_with("//") {
            let comment = rest.find('\n').unwrap_or(rest.len());
            kept.push_str(&rest[..comment]);
            rest = &rest[comment..];
            continue;
        } else if let Some(raw) = raw_literal(rest).filter(|_| !kept.ends_with(|c: char| c.is_alphanumeric() || c == '_')) {
            raw
        } else if c == '"' {
            plain_literal(rest, '"')
        } else if c == '\'' && (rest.starts_with("'\\") || rest.chars().nth(2) == Some('\'')) {
            plain_literal(rest, '\'')
        } else {
            kept.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        // Line breaks stay, so that line numbers do.
        kept.push(c);
        kept.extend(rest[..literal].chars().filter(|c| *c == '\n'));
        kept.push(c);
        rest = &rest[literal..];
    }
    kept
}

/// How long the literal is that `text` begins with, its quotes included.
fn plain_literal(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// The same for `r"…"` and `r#"…"#`.
fn raw_literal(text: &str) -> Option<usize> {
    let hashes = text.strip_prefix('r')?.chars().take_while(|c| *c == '#').count();
    let inside = text[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(inside.find(&end).map_or(text.len(), |at| 2 + hashes + at + end.len()))
}

/// True when `word` stands in `line` by itself.
fn has_word(line: &str, word: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

#[test]
fn lines_are_not_long() {
    let mut problems = Vec::new();
    for file in rust() {
        let mut in_macro = false;
        for (index, line) in without_literals(&file.text).lines().enumerate() {
            // rustfmt leaves log lines and the tables of answers in OpenAPI attributes as they are.
            let is_log = line.trim_start().starts_with("tracing::");
            in_macro |= line.starts_with("#[utoipa::path(");
            let chars = if in_macro || is_log { 0 } else { line.chars().count() };
            in_macro &= !line.ends_with(")]");
            if chars > LINE_CHARS_MAX {
                problems.push(format!("{}:{}: {chars} characters beside its texts, at most {LINE_CHARS_MAX}", file.path, index + 1));
            }
        }
    }
    none(&problems);
}

#[test]
fn files_have_names_that_say_something() {
    let parts = |path: &str| path.split('/').map(|part| part.split('.').next().unwrap_or("").to_owned()).collect::<Vec<_>>();
    let empty = |file: &File| parts(&file.path).iter().any(|part| EMPTY_NAMES.contains(&part.as_str()));
    none(&files().iter().filter(|file| empty(file)).map(|file| format!("{}: name it after its idea", file.path)).collect::<Vec<_>>());
}

#[test]
fn every_source_says_what_it_is_for() {
    // A module's unit tests in a file of their own need no introduction.
    let silent = |file: &&File| !file.path.ends_with("/tests.rs") && !file.text.starts_with("//!");
    none(&sources().iter().filter(silent).map(|file| format!("{}: begins without //!", file.path)).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_behind() {
    let mut problems = Vec::new();
    for file in sources() {
        for (index, line) in without_literals(&file.text).lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            for (word, allowed) in LEFT_BEHIND {
                if has_word(code, word.trim_end_matches('!')) && code.contains(word) && !allowed.contains(&file.path.as_str()) {
                    problems.push(format!("{}:{}: {word}", file.path, index + 1));
                }
            }
        }
    }
    none(&problems);
}

/// I1: money is exact.
#[test]
fn no_float_where_money_is() {
    let mut problems = Vec::new();
    for file in rust().iter().filter(|file| NO_FLOATS.iter().any(|place| file.path.starts_with(place))) {
        for (index, line) in file.text.lines().enumerate() {
            for float in ["f32", "f64"] {
                if has_word(line, float) {
                    problems.push(format!("{}:{}: {float}", file.path, index + 1));
                }
            }
        }
    }
    none(&problems);
}

/// The headings and code blocks of a document: how deep each heading is, and each block's text.
fn outline(text: &str) -> (Vec<usize>, Vec<String>) {
    let (mut headings, mut blocks) = (Vec::new(), Vec::new());
    let mut block: Option<String> = None;
    for line in text.lines() {
        match (&mut block, line.starts_with("```")) {
            (None, true) => block = Some(format!("{line}\n")),
            (Some(_), true) => blocks.extend(block.take()),
            (Some(block), false) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, false) if line.starts_with('#') => headings.push(line.chars().take_while(|c| *c == '#').count()),
            (None, false) => {}
        }
    }
    (headings, blocks)
}

#[test]
fn both_readmes_say_the_same() {
    let (english, chinese) = (document("README.md"), document("README.zh-CN.md"));
    let (headings, blocks) = outline(&english);
    let (headings_zh, blocks_zh) = outline(&chinese);
    assert!(headings.len() > 3 && blocks.len() > 3, "the outline of README.md does not read");
    assert_eq!(headings, headings_zh, "README.md and README.zh-CN.md have other headings");
    assert_eq!(blocks, blocks_zh, "README.md and README.zh-CN.md have other code blocks");
    for command in ["cargo run -- dev", "scripts/test"] {
        let first_screen: String = english.lines().take(25).collect::<Vec<_>>().join("\n");
        assert!(first_screen.contains(command), "`{command}` is not on the first screen of README.md");
    }
}

#[test]
fn every_decision_is_listed() {
    let list = document("docs/adr/README.md");
    let all = files();
    let pages: Vec<&str> = all.iter().filter_map(|file| file.path.strip_prefix("docs/adr/")).filter(|name| *name != "README.md").collect();
    assert!(!pages.is_empty(), "no decision found");
    let mut problems = Vec::new();
    for (index, page) in pages.iter().enumerate() {
        let text = document(&format!("docs/adr/{page}"));
        let number = format!("{:04}", index + 1);
        let title = text.lines().next().unwrap_or("").trim_start_matches("# ");
        if !page.starts_with(&number) || !title.starts_with(&number) {
            problems.push(format!("docs/adr/{page}: expected number {number} in its name and title"));
        }
        if !list.contains(&format!("[{title}]({page})")) {
            problems.push(format!("docs/adr/README.md: expected [{title}]({page})"));
        }
        for part in ["## Context", "## Decision", "## Consequences", "## Rejected"] {
            if !text.contains(part) {
                problems.push(format!("docs/adr/{page}: without {part}"));
            }
        }
    }
    none(&problems);
}

#[test]
fn no_path_is_of_one_machine() {
    // In pieces, or this file would be the first to be found.
    let folders = ["work", "root", "home", "Users"].map(|name| format!("/{name}/"));
    let mut problems = Vec::new();
    for file in files() {
        for (index, line) in file.text.lines().enumerate() {
            let mut found: Vec<&String> = folders.iter().filter(|folder| line.contains(folder.as_str())).collect();
            let tmp = format!("/{}/", "tmp");
            if file.path.ends_with(".md") && line.contains(&tmp) {
                found.push(&tmp);
            }
            problems.extend(found.iter().map(|folder| format!("{}:{}: {folder}", file.path, index + 1)));
        }
    }
    none(&problems);
}

#[test]
fn the_changelog_knows_the_version() {
    let manifest = document("Cargo.toml");
    let package = manifest.split("[workspace.package]").nth(1).expect("[workspace.package] in Cargo.toml");
    let version = package.lines().find_map(|line| line.strip_prefix("version = ")).expect("a version").trim_matches('"');
    assert!(document("CHANGELOG.md").contains(&format!("## [{version}]")), "CHANGELOG.md has no section for {version}");
}

#[test]
fn architecture_names_every_invariant() {
    let text = document("ARCHITECTURE.md");
    let invariants = text.split("## Invariants").nth(1).expect("a section of invariants");
    let mut problems = Vec::new();
    for number in 1..=14 {
        let head = format!("**I{number} — ");
        match invariants.lines().find(|line| line.starts_with(&head)) {
            None => problems.push(format!("ARCHITECTURE.md: no paragraph that begins with {head}")),
            Some(line) if !line.contains("*Shown by*") && !line.contains("Not yet") => {
                problems.push(format!("ARCHITECTURE.md: I{number} names no test and does not say so"));
            }
            Some(_) => {}
        }
    }
    none(&problems);
}

/// The texts in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn architecture_names_what_exists() {
    let text = document("ARCHITECTURE.md");
    let all = rust();
    let tests: BTreeSet<&str> = all
        .iter()
        .flat_map(|file| file.text.lines())
        .filter_map(|line| line.trim_start().trim_start_matches("pub ").trim_start_matches("async ").strip_prefix("fn "))
        .filter_map(|rest| rest.split(['(', '<']).next())
        .collect();
    let mut problems = Vec::new();
    for path in quoted(&text).filter(|name| ["crates/", "docs/", "scripts/"].iter().any(|start| name.starts_with(start))) {
        if !root().join(path).exists() {
            problems.push(format!("ARCHITECTURE.md: `{path}` does not exist"));
        }
    }
    let mut named = 0;
    for line in text.lines() {
        let Some((_, shown)) = line.split_once("*Shown by*") else { continue };
        for name in quoted(shown.split("Not yet").next().unwrap_or(shown)) {
            named += 1;
            if !tests.contains(name) {
                problems.push(format!("ARCHITECTURE.md: there is no test `{name}`"));
            }
        }
    }
    assert!(named > 20, "only {named} tests are named: the page does not read");
    none(&problems);
}

/// The targets of a document's links: `](target)`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut problems = Vec::new();
    for file in files().iter().filter(|file| file.path.ends_with(".md")) {
        let folder = root().join(&file.path);
        let folder = folder.parent().expect("a folder");
        for link in links(&file.text).filter(|link| !link.contains("://") && !link.contains('…')) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { root().join(&file.path) } else { folder.join(path) };
            if !target.exists() {
                problems.push(format!("{}: {link} is not there", file.path));
            } else if !anchor.is_empty() && !anchors(&fs::read_to_string(&target).unwrap_or_default()).contains(anchor) {
                problems.push(format!("{}: {link} has no such heading", file.path));
            }
        }
    }
    none(&problems);
}

/// What the headings of a document are called in links.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let name = |heading: &str| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect::<String>()
    };
    headings.map(name).collect()
}

/// The text of each warning and error that a source writes into the log, `…` in the place of values.
/// It is the first literal among the macro's own arguments that is no field's value.
fn warnings(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for level in ["tracing::warn!(", "tracing::error!("] {
        for (at, _) in text.match_indices(level) {
            let (mut depth, mut before, mut rest) = (1, '(', &text[at + level.len()..]);
            while let Some(c) = rest.chars().next().filter(|_| depth > 0) {
                let mut length = c.len_utf8();
                match c {
                    '"' => {
                        length = plain_literal(rest, '"');
                        if depth == 1 && matches!(before, '(' | ',') {
                            found.push(with_gaps(&rest[1..length - 1]));
                            break;
                        }
                    }
                    '(' | '[' | '{' => depth += 1,
                    ')' | ']' | '}' => depth -= 1,
                    _ => {}
                }
                before = if c.is_whitespace() { before } else { c };
                rest = &rest[length..];
            }
        }
    }
    found
}

/// A format text with `…` for what is put in.
fn with_gaps(format: &str) -> String {
    let mut parts = format.split('{');
    let first = parts.next().unwrap_or("").to_owned();
    parts.fold(first, |text, part| format!("{text}…{}", part.split_once('}').map_or("", |(_, rest)| rest)))
}

#[test]
fn warnings_are_found_in_their_sources() {
    let source = r#"
        tracing::warn!(network = %name, code = "x", "it was {} and {why:?}: look", what.join(", "));
        tracing::error!(
            target: ACCESS,
            took = f("no", &["no"]),
            "it broke"
        );
        tracing::info!("all is well");"#;
    assert_eq!(warnings(source), ["it was … and …: look", "it broke"]);
}

/// Whoever reads a warning at night finds what it means and what to do, and nothing that is gone.
#[test]
fn every_warning_is_explained() {
    let page = document("docs/operating.md");
    let section = page.split("\n## ").find(|section| section.starts_with("The log\n")).expect("a section `## The log`");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")).skip_while(|row| !row.starts_with("---")).skip(1);
    let explained: BTreeSet<&str> = rows.filter_map(|row| row.split(" | ").next()).flat_map(|cell| cell.split("<br>")).collect();
    let mut written = BTreeSet::new();
    let mut problems = Vec::new();
    for file in sources() {
        let calls = without_literals(&file.text);
        let calls = ["tracing::warn!(", "tracing::error!("].map(|call| calls.matches(call).count()).iter().sum::<usize>();
        let found = warnings(&file.text);
        if found.len() != calls {
            problems.push(format!("{}: {calls} warnings and errors, {} of them with a text of their own", file.path, found.len()));
        }
        for text in found {
            if !text.contains(char::is_alphabetic) {
                problems.push(format!("{}: a warning or error that begins with nothing to look for: {text}", file.path));
            } else if !explained.contains(text.as_str()) {
                problems.push(format!("docs/operating.md, The log: add a row for `{text}` of {}", file.path));
            }
            written.insert(text);
        }
    }
    assert!(written.len() > 40, "only {} warnings found: the sources do not read", written.len());
    problems.extend(
        explained
            .iter()
            .filter(|text| !written.contains(**text))
            .map(|text| format!("docs/operating.md, The log: nothing writes `{text}`")),
    );
    none(&problems);
}
