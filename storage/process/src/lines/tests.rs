use super::*;
use highwater_wire::{BatchBuilder, BatchView, Header, ProducerStamp};
use proptest::prelude::*;
use serde_json::{Value, json};

/// 2015-11-17T00:00:00Z.
const NOW: u64 = 1_447_718_400_000_000_000;

fn parsed(format: LineFormat, line: &str) -> (Value, bool) {
    let parsed = format.parse(line.as_bytes(), NOW).unwrap_or_else(|e| panic!("{line}: {e}"));
    if parsed.exact {
        assert_eq!(format.line(&parsed.json).as_deref(), Some(line));
    }
    (serde_json::from_slice(&parsed.json).unwrap(), parsed.exact)
}

fn refused(format: LineFormat, line: &[u8]) -> String {
    format.parse(line, NOW).unwrap_err().to_string()
}

#[test]
fn combined_and_common_lines_have_all_their_fields() {
    let line = "83.149.9.216 - frank [17/May/2015:10:05:03 +0200] \"GET /a/b?x=1&y=?2 HTTP/1.1\" 200 \
                203023 \"http://e.com/\" \"Mozilla/5.0 (X; \\\"q\\\" \\\\)\"";
    let (entry, exact) = parsed(LineFormat::AccessLog, line);
    assert!(exact);
    assert_eq!(
        entry,
        json!({
            "client": "83.149.9.216", "user": "frank", "time": "2015-05-17T10:05:03+02:00",
            "method": "GET", "path": "/a/b", "query": "x=1&y=?2", "protocol": "HTTP/1.1",
            "status": 200, "bytes": 203_023, "referer": "http://e.com/",
            "agent": "Mozilla/5.0 (X; \"q\" \\)",
        })
    );
    let common = "::1 - - [01/Jan/2016:00:00:00 +0000] \"HEAD / HTTP/1.0\" 304 -";
    let (entry, exact) = parsed(LineFormat::AccessLog, common);
    assert!(exact);
    assert_eq!(
        entry,
        json!({
            "client": "::1", "user": null, "time": "2016-01-01T00:00:00Z", "method": "HEAD",
            "path": "/", "query": null, "protocol": "HTTP/1.0", "status": 304, "bytes": null,
        })
    );
}

#[test]
fn unusual_lines_come_back_too() {
    let head = "h - - [17/May/2015:10:05:03 +0000]";
    // (line, exact by the document alone, path)
    let table = [
        (format!("{head} \"-\" 408 -"), true, json!(null)),
        (format!("{head} \"GET /\" 200 1"), true, json!("/")),
        (format!("{head} \"GET /a b HTTP/1.1\" 400 1"), true, json!("GET /a b HTTP/1.1")),
        (format!("{head} \"\" 400 0"), true, json!("")),
        (format!("{head} \"GET /? HTTP/1.1\" 200 5"), true, json!("/")),
        // An escape that is none of ours: kept as it is, and the line with it.
        (format!("{head} \"\\x16\\x03\\x01\" 400 226"), false, json!("\\x16\\x03\\x01")),
        (format!("{head} \"GET / HTTP/1.1\" 200 1\r"), false, json!("/")),
        (format!("{head} \"GET / HTTP/1.1\" 200 01"), false, json!("/")),
        ("h - - [17/May/2015:10:05:03 -0000] \"GET / HTTP/1.1\" 200 1".into(), true, json!("/")),
        ("h id a b [17/May/2015:10:05:03 +0000] \"GET / HTTP/1.1\" 200 1".into(), true, json!("/")),
    ];
    for (line, exact, path) in table {
        let (entry, found) = parsed(LineFormat::AccessLog, &line);
        assert_eq!((found, &entry["path"]), (exact, &path), "{line}");
    }
}

#[test]
fn a_line_of_no_access_log_is_refused_with_its_place() {
    let head = "h - - [17/May/2015:10:05:03 +0000]";
    let table: [(String, &str); 10] = [
        (String::new(), "the line ends at column 1, where client should be"),
        ("h".into(), "the line ends at column 2, where ident should be"),
        ("h - x".into(), "user at column 5 is \"x\", not a name and the time in brackets"),
        ("h - - [17/May/2015".into(), "time at column 8 has no closing ']'"),
        (
            "h - - [31/Feb/2015:10:05:03 +0000] \"\" 1 1".into(),
            "time at column 8 is \"31/Feb/2015:10:05:03\", not a time like 17/May/2015:10:05:03 +0000",
        ),
        (format!("{head} GET"), "request at column 36 is \"GET\", not a text in double quotes"),
        (format!("{head} \"GET / \\\" 200 1"), "request at column 36 has no closing '\"'"),
        (
            format!("{head} \"\" 2x0 1"),
            "status at column 39 is \"2x0\", not a status of three digits",
        ),
        (format!("{head} \"\" 200 1 \"-\""), "the line ends at column 48, where agent should be"),
        (
            format!("{head} \"\" 200 1 \"-\" \"-\" 7"),
            "there is more behind the last field, at column 52",
        ),
    ];
    for (line, error) in table {
        assert_eq!(refused(LineFormat::AccessLog, line.as_bytes()), error, "{line}");
    }
    assert_eq!(refused(LineFormat::AccessLog, b"ab\xff"), "byte 3 of the line is not UTF-8");
    let long = vec![b'x'; MAX_LINE + 1];
    assert!(refused(LineFormat::AccessLog, &long).contains("the limit is 65000"));
}

#[test]
fn syslog_of_both_rfcs() {
    let line = "<165>1 2003-10-11T22:14:15.003Z host.example.com evntslog - ID47 \
                [a@1 x=\"1\" y=\"q\\\"\\]\\\\\"][b@1] An event";
    let (entry, exact) = parsed(LineFormat::Syslog, line);
    assert!(exact);
    assert_eq!(
        entry,
        json!({
            "facility": 20, "severity": 5, "version": 1, "time": "2003-10-11T22:14:15.003Z",
            "host": "host.example.com", "app": "evntslog", "pid": null, "msgid": "ID47",
            "structured": {"a@1": {"x": "1", "y": "q\"]\\"}, "b@1": {}}, "message": "An event",
        })
    );
    let (entry, exact) = parsed(LineFormat::Syslog, "<0>1 - - - - - -");
    assert!(exact);
    assert_eq!((&entry["message"], &entry["structured"]), (&Value::Null, &Value::Null));
    let (entry, exact) =
        parsed(LineFormat::Syslog, "<34>Oct 11 22:14:15 mymachine su[230]: 'su root' failed");
    assert!(exact);
    assert_eq!(
        entry,
        json!({
            "facility": 4, "severity": 2, "time": "2015-10-11T22:14:15Z", "host": "mymachine",
            "app": "su", "pid": "230", "message": "'su root' failed",
        })
    );
}

#[test]
fn old_syslog_is_taken_as_it_comes() {
    // (line, exact, time, app, message)
    let table = [
        ("Nov  7 01:02:03 h cron: x", true, "2015-11-07T01:02:03Z", json!("cron"), "x"),
        // More than a day ahead: of the year before.
        ("Dec 24 01:02:03 h cron: x", true, "2014-12-24T01:02:03Z", json!("cron"), "x"),
        // No such day this year, nor in the years up to the last leap year.
        ("Feb 29 01:02:03 h cron: x", true, "2012-02-29T01:02:03Z", json!("cron"), "x"),
        ("Nov  7 01:02:03 h no tag here", true, "2015-11-07T01:02:03Z", json!(null), "no tag here"),
        ("Nov  7 01:02:03 kernel: up", true, "2015-11-07T01:02:03Z", json!("kernel"), "up"),
        (
            "2015-11-07T01:02:03.5+02:00 h a[1]: x",
            false,
            "2015-11-07T01:02:03.5+02:00",
            json!("a"),
            "x",
        ),
        ("<13>Nov  7 01:02:03 h a:x", false, "2015-11-07T01:02:03Z", json!("a"), "x"),
    ];
    for (line, exact, time, app, message) in table {
        let (entry, found) = parsed(LineFormat::Syslog, line);
        assert_eq!(found, exact, "{line}");
        assert_eq!((&entry["time"], &entry["app"]), (&json!(time), &app), "{line}");
        assert_eq!(entry["message"], message, "{line}");
    }
    for (line, words) in [
        ("", "where time should be"),
        ("<192>x", "not a number from 0 to 191"),
        ("<01>x", "not a number from 0 to 191"),
        ("<1", "has no closing '>'"),
        ("<1>Foo  7 01:02:03 h", "not a time like Oct 11 22:14:15"),
        ("<1>1 yesterday h a p m -", "not a time as in RFC 3339, or -"),
        ("<1>1 - h a p m [x y]", "has no closing '='"),
        ("<1>1 - h a p m x", "not elements like"),
        ("<1>1 - h a p m -x", "there is more"),
    ] {
        let error = refused(LineFormat::Syslog, line.as_bytes());
        assert!(error.contains(words), "{line}: {error}");
    }
}

/// What a record of `headers` and `payload` was made of.
fn original_of(headers: &[Header<'_>], payload: &[u8]) -> Option<Vec<u8>> {
    let mut builder = BatchBuilder::default();
    builder.push(b"k", headers, payload, 0).unwrap();
    let batch = builder.finish(ProducerStamp::default()).to_vec();
    let record = BatchView::parse(&batch).unwrap().records().next().unwrap();
    original(&record).map(Cow::into_owned)
}

#[test]
fn a_record_gives_its_line_back_or_says_that_there_is_none() {
    let format = Header { name: FORMAT_HEADER, value: b"access-log" };
    let line = "h - - [17/May/2015:10:05:03 +0000] \"GET / HTTP/1.1\" 200 1";
    let parsed = LineFormat::AccessLog.parse(line.as_bytes(), NOW).unwrap();
    assert_eq!(original_of(&[format], &parsed.json).unwrap(), line.as_bytes());
    let kept = Header { name: LINE_HEADER, value: b"as it was\r" };
    assert_eq!(original_of(&[format, kept], b"{}").unwrap(), b"as it was\r");
    assert_eq!(original_of(&[], &parsed.json), None);
    assert_eq!(original_of(&[format], b"{}"), None, "somebody else's document");
    let other = Header { name: FORMAT_HEADER, value: b"csv" };
    assert_eq!(original_of(&[other], b"{}"), None);
}

/// A quoted field with all there may be in it.
fn quoted() -> impl Strategy<Value = String> {
    prop::string::string_regex(
        "([a-zA-Z0-9 /?&=%.\u{e4}\u{4e16}-]|\\\\\\\\|\\\\\"|\\\\x[0-9a-f]{2}|\\\\n){0,40}",
    )
    .unwrap()
}

proptest! {
    #[test]
    fn access_log_lines_come_back_to_the_byte(
        client in "[a-z0-9.:]{1,20}", user in "(-|[a-z ]{0,5}[a-z])", day in 1u8..=28, zone in "[+-][01][0-9][0-5][0-9]",
        request in quoted(), status in "(-|[1-9][0-9]{2})", bytes in "(-|[0-9]{1,12})",
        more in prop::option::of((quoted(), quoted())),
    ) {
        let mut line = format!("{client} - {user} [{day:02}/Jul/2021:23:59:59 {zone}] \"{request}\" {status} {bytes}");
        if let Some((referer, agent)) = more {
            line += &format!(" \"{referer}\" \"{agent}\"");
        }
        let parsed = LineFormat::AccessLog.parse(line.as_bytes(), NOW).unwrap();
        let back = LineFormat::AccessLog.line(&parsed.json);
        prop_assert_eq!(parsed.exact, back.as_deref() == Some(&line[..]), "what is found at the door holds later");
    }

    #[test]
    fn no_line_panics_and_what_is_exact_comes_back(line in "\\PC{0,80}", head in "(<[0-9]{1,3}>[0-9]? ?)?(Nov  7 01:02:03 )?") {
        for format in [LineFormat::AccessLog, LineFormat::Syslog] {
            let line = format!("{head}{line}");
            if let Ok(parsed) = format.parse(line.as_bytes(), NOW) {
                prop_assert_eq!(parsed.exact, format.line(&parsed.json).as_ref() == Some(&line));
            }
            let _ = format.line(line.as_bytes());
        }
    }

    #[test]
    fn no_bytes_panic(line in prop::collection::vec(any::<u8>(), 0..200), now: u64) {
        for format in [LineFormat::AccessLog, LineFormat::Syslog] {
            let _ = format.parse(&line, now);
            let _ = format.line(&line);
        }
    }
}
