//! The configuration file as places: every value knows its key and its line, and what nobody asked
//! for is an unknown key. Nothing here knows what the keys mean.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::values::{Echo, Form, quote};

type Key<'a> = Spanned<Cow<'a, str>>;
type Value<'a> = Spanned<DeValue<'a>>;

/// Everything that is wrong, so that it can be said at once.
#[derive(Default)]
pub(super) struct Problems {
    found: Vec<String>,
    unknown: Vec<Unknown>,
    /// Every key that was asked for, with its section.
    known: Vec<(String, &'static str)>,
}

struct Unknown {
    place: String,
    key: String,
    section: String,
}

impl Problems {
    pub(super) fn add(&mut self, place: &str, problem: &str) {
        self.found.push(format!("{place}: {problem}"));
    }

    /// The value, or `None` and one problem more.
    pub(super) fn keep<T>(&mut self, place: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|problem| self.add(place, &problem)).ok()
    }

    /// All of them as sentences, those of unknown keys last.
    pub(super) fn into_sentences(self) -> Vec<String> {
        let mut all = self.found;
        let mut said = HashSet::new();
        all.retain(|sentence| said.insert(sentence.clone()));
        for unknown in &self.unknown {
            all.push(format!("unknown key {}: {}", unknown.place, advice(unknown, &self.known)));
        }
        all
    }

    #[cfg(test)]
    pub(super) fn known(&self) -> &[(String, &'static str)] {
        &self.known
    }
}

/// Names that are asked for where they do not belong.
const ELSEWHERE: [(&str, &str); 14] = [
    ("tls", "they are `tls_cert` and `tls_key` in [server], each the name of a file in PEM"),
    ("master_key", "it does not belong into a file of settings; set WALLET_MASTER_KEY or WALLET_MASTER_KEY_FILE"),
    ("wallet_master_key", "it does not belong into a file of settings; set WALLET_MASTER_KEY or WALLET_MASTER_KEY_FILE"),
    ("encryption_salt", "set the environment variable ENCRYPTION_SALT"),
    ("redis_url", "set the environment variable REDIS_URL"),
    ("metrics", "set the environment variables METRICS_ENABLED and METRICS_ADDR"),
    ("trongrid_api_key", "set the environment variable TRONGRID_API_KEY"),
    ("infura_project_id", "set the environment variable INFURA_PROJECT_ID"),
    ("database_url", "it is `url` in [database]"),
    ("password", "set the environment variable SMTP_PASSWORD, or SMTP_PASSWORD_FILE to the name of a file"),
    ("password_file", "set the environment variable SMTP_PASSWORD_FILE"),
    ("bot_token", "set the environment variable TELEGRAM_BOT_TOKEN, or TELEGRAM_BOT_TOKEN_FILE to the name of a file"),
    ("token_file", "set the environment variable TELEGRAM_BOT_TOKEN_FILE"),
    ("secret", "set the environment variable SMS_SECRET, or SMS_SECRET_FILE to the name of a file"),
];

fn advice(unknown: &Unknown, known: &[(String, &'static str)]) -> String {
    if let Some((_, advice)) = ELSEWHERE.iter().find(|(name, _)| name.eq_ignore_ascii_case(&unknown.key)) {
        return (*advice).to_owned();
    }
    let mut siblings: Vec<&str> = known.iter().filter(|(section, _)| *section == unknown.section).map(|(_, key)| *key).collect();
    siblings.sort_by_key(|key| strsim::damerau_levenshtein(key, &unknown.key));
    siblings.dedup();
    let is_near = |key: &&str| {
        let differing = strsim::damerau_levenshtein(key, &unknown.key);
        differing.saturating_mul(2) <= key.len().max(unknown.key.len())
    };
    if let Some(nearest) = siblings.first().filter(|key| is_near(key)) {
        return format!("did you mean `{nearest}`?");
    }
    let namesake = known.iter().find(|(section, key)| *key == unknown.key && !section.is_empty() && !section.contains('.'));
    if let Some((section, key)) = namesake {
        return format!("did you mean `{key}` in [{section}]?");
    }
    let siblings: Vec<String> = siblings.iter().map(|key| format!("`{key}`")).collect();
    format!("expected one of {}", siblings.join(", "))
}

/// What the file is called, and its text, for line numbers.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
}

impl Source<'_> {
    /// Reads a file's syntax. The error is a sentence without any of the file's text, because the
    /// line at fault may hold a secret.
    pub(super) fn parse(&self) -> Result<Spanned<DeTable<'_>>, String> {
        DeTable::parse(self.text).map_err(|error| {
            let line = error.span().map_or_else(String::new, |span| format!(", line {}", self.line(span.start)));
            format!("{}{line}: this is not TOML: {}", self.name, error.message().replace('\n', "; "))
        })
    }

    fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().get(..offset).unwrap_or_default();
        before.iter().filter(|byte| **byte == b'\n').count().saturating_add(1)
    }

    fn place(&self, path: &str, offset: usize) -> String {
        format!("`{path}` in {}, line {}", self.name, self.line(offset))
    }
}

/// A table of the file, or an empty one that is not in it.
pub(super) struct Section<'a> {
    source: Source<'a>,
    path: String,
    /// As it is said in a sentence.
    pub(super) place: String,
    /// In the order of the file.
    entries: Vec<(&'a Key<'a>, &'a Value<'a>)>,
    known: Vec<&'static str>,
}

/// A value of the file.
pub(super) struct Field<'a> {
    source: Source<'a>,
    path: String,
    pub(super) place: String,
    value: &'a Value<'a>,
}

impl<'a> Section<'a> {
    pub(super) fn root(source: Source<'a>, table: &'a DeTable<'a>) -> Self {
        let mut root = Self::empty(String::new(), source.name.to_owned());
        root.source = source;
        root.entries = in_order(table);
        root
    }

    /// A table that is not in the file: every key is absent.
    pub(super) fn empty(path: String, place: String) -> Self {
        Self { source: Source { name: "", text: "" }, path, place, entries: Vec::new(), known: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value under a key, which is known from now on.
    pub(super) fn field(&mut self, key: &'static str) -> Option<Field<'a>> {
        self.known.push(key);
        let (_, value) = self.entries.iter().find(|(name, _)| name.get_ref() == key)?;
        Some(self.child(key, value.span().start, value))
    }

    fn child(&self, key: &str, offset: usize, value: &'a Value<'a>) -> Field<'a> {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Field { source: self.source, place: self.source.place(&path, offset), path, value }
    }

    /// Every key with its value, whatever the keys are: all of them are known.
    pub(super) fn children(self) -> Vec<(&'a str, Field<'a>)> {
        let child = |(key, value): &(&'a Key<'a>, &'a Value<'a>)| {
            let name: &'a str = key.get_ref();
            (name, self.child(name, key.span().start, value))
        };
        self.entries.iter().map(child).collect()
    }

    /// The table under a key; an empty one where it is absent or something else.
    pub(super) fn section(&mut self, key: &'static str, problems: &mut Problems) -> Self {
        let absent = || Self::empty(key.to_owned(), format!("[{key}]"));
        let Some(field) = self.field(key) else { return absent() };
        let place = field.place.clone();
        problems.keep(&place, field.into_section()).unwrap_or_else(absent)
    }

    /// The text under a key.
    pub(super) fn text<T>(&mut self, key: &'static str, form: &Form<T>, problems: &mut Problems) -> Option<T> {
        let field = self.field(key)?;
        problems.keep(&field.place, field.text(form))
    }

    /// The integer under a key.
    pub(super) fn integer(&mut self, key: &'static str, range: RangeInclusive<u64>, problems: &mut Problems) -> Option<u64> {
        let field = self.field(key)?;
        problems.keep(&field.place, field.integer(range))
    }

    /// The boolean under a key.
    pub(super) fn boolean(&mut self, key: &'static str, problems: &mut Problems) -> Option<bool> {
        let field = self.field(key)?;
        problems.keep(&field.place, field.value.get_ref().as_bool().ok_or_else(|| field.wrong("true or false", Echo::Quote)))
    }

    /// Every key that nobody asked for is a problem.
    pub(super) fn finish(self, problems: &mut Problems) {
        for (key, _) in &self.entries {
            let name = key.get_ref();
            if self.known.iter().any(|known| known == name) {
                continue;
            }
            let path = if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) };
            let place = self.source.place(&path, key.span().start);
            problems.unknown.push(Unknown { place, key: name.to_string(), section: self.path.clone() });
        }
        problems.known.extend(self.known.iter().map(|key| (self.path.clone(), *key)));
    }
}

impl<'a> Field<'a> {
    /// "expected …, found …", for a value of another type.
    pub(super) fn wrong(&self, expected: &str, echo: Echo) -> String {
        let found = match (self.value.get_ref(), echo) {
            (DeValue::String(text), Echo::Quote) => format!("the text {}", quote(text)),
            (DeValue::Integer(number), Echo::Quote) => format!("the number {number}"),
            (DeValue::Float(number), Echo::Quote) => format!("the number {number}"),
            (DeValue::String(_), Echo::Hide) => "a text (not shown)".to_owned(),
            (DeValue::Integer(_) | DeValue::Float(_), Echo::Hide) => "a number (not shown)".to_owned(),
            (DeValue::Boolean(value), _) => value.to_string(),
            (DeValue::Datetime(_), _) => "a date or time without quotes".to_owned(),
            (DeValue::Array(_), _) => "a list".to_owned(),
            (DeValue::Table(_), _) => "a table".to_owned(),
        };
        format!("expected {expected}, found {found}")
    }

    pub(super) fn text<T>(&self, form: &Form<T>) -> Result<T, String> {
        match self.value.get_ref() {
            DeValue::String(text) => form.read(text),
            _ => Err(self.wrong(form.expected, form.echo)),
        }
    }

    pub(super) fn is_text(&self) -> bool {
        self.value.get_ref().is_str()
    }

    pub(super) fn is_integer(&self) -> bool {
        self.value.get_ref().is_integer()
    }

    pub(super) fn integer(&self, range: RangeInclusive<u64>) -> Result<u64, String> {
        let wrong = || {
            let expected = match (*range.start(), *range.end()) {
                (0, u64::MAX) => "a whole number".to_owned(),
                (start, u64::MAX) => format!("a whole number of at least {start}"),
                (start, end) => format!("a whole number from {start} to {end}"),
            };
            self.wrong(&expected, Echo::Quote)
        };
        let DeValue::Integer(number) = self.value.get_ref() else { return Err(wrong()) };
        u64::from_str_radix(number.as_str(), number.radix()).ok().filter(|number| range.contains(number)).ok_or_else(wrong)
    }

    pub(super) fn into_section(self) -> Result<Section<'a>, String> {
        let DeValue::Table(table) = self.value.get_ref() else {
            return Err(self.wrong("a table", Echo::Hide));
        };
        let Self { source, path, place, .. } = self;
        Ok(Section { source, path, place, entries: in_order(table), known: Vec::new() })
    }

    /// The entries of a list.
    pub(super) fn into_list(self, expected: &str) -> Result<Vec<Self>, String> {
        let DeValue::Array(list) = self.value.get_ref() else {
            return Err(self.wrong(expected, Echo::Hide));
        };
        let entry = |(index, value): (usize, &'a Value<'a>)| {
            let path = format!("{}[{index}]", self.path);
            Self { source: self.source, place: self.source.place(&path, value.span().start), path, value }
        };
        Ok(list.iter().enumerate().map(entry).collect())
    }
}

fn in_order<'a>(table: &'a DeTable<'a>) -> Vec<(&'a Key<'a>, &'a Value<'a>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}
