//! What the parser says of an expression that it cannot read, in words: it names its tokens, of which there are thirty.

/// What was found instead of what, from the parser's message; in one line, without the place.
pub(super) fn in_words(message: &str) -> String {
    let message = message.lines().next().unwrap_or_default();
    let message = message.strip_prefix("Syntax error: ").unwrap_or(message);
    if let Some(text) = message.strip_prefix("token recognition error at: ") {
        return unreadable(unquoted(text));
    }
    let unwanted = message
        .strip_prefix("mismatched input ")
        .or_else(|| message.strip_prefix("extraneous input "));
    if let Some((found, wanted)) = unwanted.and_then(|rest| rest.rsplit_once(" expecting ")) {
        return unexpected(found, wanted);
    }
    if let Some((wanted, found)) =
        message.strip_prefix("missing ").and_then(|rest| rest.rsplit_once(" at "))
    {
        return unexpected(found, wanted);
    }
    if let Some(found) = message.strip_prefix("no viable alternative at input ") {
        return unexpected(found, "");
    }
    if let Some(word) = message.strip_prefix("reserved identifier: ") {
        return format!("{word:?} is a reserved word and cannot be a name");
    }
    if let Some(what) = message.strip_prefix("unsupported syntax ") {
        return format!("{what} cannot be used here");
    }
    let literal = |kind| message.starts_with("invalid ") && message.contains(kind);
    if literal("string literal") || literal("bytes literal") {
        return "a text with a \\ in it that begins nothing known".to_owned();
    }
    if literal("int literal") || literal("double literal") {
        return "a number that is out of range".to_owned();
    }
    // What it says of its own tree is of use to nobody.
    if message.contains('`') || message.starts_with("Incomplete ") || message.is_empty() {
        return "this cannot be read".to_owned();
    }
    message.to_owned()
}

fn unquoted(text: &str) -> &str {
    text.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')).unwrap_or(text)
}

/// Characters that begin nothing in the language.
fn unreadable(text: &str) -> String {
    match text.trim_start().chars().next() {
        Some('=') => "'=' alone means nothing; write == to compare".to_owned(),
        Some('&') => "'&' alone means nothing; write && for and".to_owned(),
        Some('|') => "'|' alone means nothing; write || for or".to_owned(),
        Some('"' | '\'') => {
            "a text that begins here and does not end: its closing quote is missing, or a \\ in it \
                             begins nothing known"
                .to_owned()
        }
        Some(other) => format!("{other:?} means nothing here"),
        None => "this cannot be read".to_owned(),
    }
}

fn unexpected(found: &str, wanted: &str) -> String {
    let found = match unquoted(found) {
        "<EOF>" | "" => "the expression ends".to_owned(),
        text => format!("{text:?} is out of place"),
    };
    match kinds(wanted) {
        kinds if kinds.is_empty() => found,
        kinds => format!("{found}; expected {kinds}"),
    }
}

/// What tokens are good for: the parser names every one that could be next.
fn kinds(tokens: &str) -> String {
    let has = |token: &str| tokens.contains(token);
    let table = [
        (has("NUM_INT"), "a value (a name, a number, a text in quotes, a list or a bracket)"),
        (has("IDENTIFIER") && !has("NUM_INT"), "a name"),
        (has("'=='"), "an operator"),
        (has("','"), "a comma"),
        (has("':'"), "':'"),
        (has("')'"), "')'"),
        (has("']'"), "']'"),
        (has("'}'"), "'}'"),
        (has("<EOF>"), "the end"),
    ];
    let kinds: Vec<&str> =
        table.iter().filter(|(there, _)| *there).map(|(_, kind)| *kind).collect();
    match kinds.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Expression;

    /// The message named thirty tokens of the grammar, as `NUM_UINT`.
    #[test]
    fn what_cannot_be_read_is_told_in_words() {
        let value = "a value (a name, a number, a text in quotes, a list or a bracket)";
        let table = [
            ("json.status = 404", "'=' alone means nothing; write == to compare".to_owned()),
            ("a & b", "'&' alone means nothing; write && for and".to_owned()),
            ("key | 'x'", "'|' alone means nothing; write || for or".to_owned()),
            ("key == @", "'@' means nothing here".to_owned()),
            ("json.status ==", format!("the expression ends; expected {value}")),
            ("", format!("the expression ends; expected {value}")),
            ("if == 1", "\"if\" is a reserved word and cannot be a name".to_owned()),
        ];
        for (source, words) in table {
            let told = Expression::compile(source).map(drop).unwrap_err().to_string();
            assert!(told.ends_with(&words), "{source}: {told}");
        }
    }

    /// Whatever is wrong, no name of a token is told.
    #[test]
    fn no_names_of_tokens_are_told() {
        let wrong = [
            "json.a == 1 2",
            "json.a ==== 1",
            "(json.a == 1",
            "json.a == 1)",
            "json.a[1",
            "json.",
            "json.a.",
            ".",
            "[1, 2",
            "{1: 2",
            "{1 2}",
            "key == 'x",
            "key == \"x",
            "size(",
            "size(,)",
            "a ? b",
            "a ? b :",
            "!",
            "key in",
            "1 +",
            "* 2",
            "0x",
            "0xFFFFFFFFFFFFFFFFFF == seq",
            "key == 'a\\q'",
            "key == \"\\",
            "a.?b",
            "has(json)",
            "json.all(x)",
            "json.all(1, true)",
            "&",
            "|",
            "=",
            "#",
            "key == b'\\u1234'",
            "1e99999 == 1.0",
            "x{a: 1",
            "[?a]",
            "`a`",
            "json.`a",
            "\u{1f600}",
            "key\u{0}",
        ];
        for source in wrong {
            let Err(error) = Expression::compile(source).map(drop) else {
                panic!("{source} is read")
            };
            let told = error.to_string();
            for token in [
                "NUM_",
                "IDENTIFIER",
                "STRING",
                "BYTES",
                "EOF",
                "viable",
                "`",
                "Invalid",
                "Context",
            ] {
                let own = source.contains(token);
                assert!(own || !told.contains(token), "{source}: {told}");
            }
            assert_eq!(told.lines().count(), 1, "{source}: {told}");
        }
    }
}
