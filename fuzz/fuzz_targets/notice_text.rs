//! The texts of notifications, and what is filled in: a name that is not known is refused, a value
//! starts no line, and nothing that is filled in is read again. An input is a topic, a subject, a
//! value and a text, a line each; the text goes on to the end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::notices::template::{Template, Values, known};
use tidegate_rules::notification::{Channel, Topic};

fuzz_target!(|input: &str| {
    let mut lines = input.splitn(4, '\n');
    let (Some(topic), Some(subject), Some(value), Some(body)) = (lines.next(), lines.next(), lines.next(), lines.next()) else { return };
    let topic = Topic::from_name(topic).unwrap_or(Topic::ALL[topic.len() % Topic::ALL.len()]);
    let channel = if subject.is_empty() { Channel::ALL[1 + value.len() % 2] } else { Channel::Smtp };
    let Ok(template) = Template::parse(topic, channel, subject, body) else { return };

    // Every name between braces is a known one.
    let names = |text: &str| text.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap().trim().to_owned()).collect::<Vec<_>>();
    let used = [names(subject), names(body)].concat();
    assert!(used.iter().all(|name| known(topic).contains(&name.as_str()) || name.starts_with("metadata.")), "{used:?}");

    let mut values = Values::default();
    used.iter().for_each(|name| values.put(name, value));
    let (filled_subject, filled_body) = template.fill(&values);
    assert!(!filled_subject.chars().any(char::is_control), "{filled_subject:?}");
    assert_eq!(filled_body.matches('\n').count(), body.matches('\n').count(), "a value starts a line");

    // The same, by replacing: what is filled in is read once.
    let mut plain = Values::default();
    used.iter().for_each(|name| plain.put(name, "x"));
    let mut rest = body;
    let mut expected = String::new();
    while let Some((words, tail)) = rest.split_once("{{") {
        expected.push_str(words);
        expected.push('x');
        rest = tail.split_once("}}").unwrap().1;
    }
    expected.push_str(rest);
    assert_eq!(template.fill(&plain).1, expected);
});
