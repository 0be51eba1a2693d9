use super::*;
use highwater_wire::{BatchBuilder, BatchView, Header, ProducerStamp};
use proptest::prelude::*;

/// A batch of one record.
fn batch(headers: &[Header<'_>], payload: &[u8]) -> Vec<u8> {
    let mut builder = BatchBuilder::default();
    builder.push(b"user-7", headers, payload, 1_431_857_103_000_000_000).unwrap();
    let mut bytes = builder.finish(ProducerStamp::default()).to_vec();
    highwater_wire::stamp(&mut bytes, 41, 1_431_857_104_500_000_000, 0);
    bytes
}

/// The value of `source` for a record of `payload`, as JSON would have it.
fn value_of(source: &str, payload: &[u8]) -> Result<serde_json::Value, EvalError> {
    let headers =
        [Header { name: "origin", value: b"edge" }, Header { name: "raw", value: b"\xff" }];
    let bytes = batch(&headers, payload);
    let view = BatchView::parse(&bytes).unwrap().records().next().unwrap();
    let expression = Expression::compile(source).unwrap_or_else(|e| panic!("{source}: {e}"));
    let record = Record::new(view, 1_431_857_104_500_000_000, expression.wanted());
    expression.value(&record).map(|value| value.to_json())
}

const DOCUMENT: &[u8] =
    br#"{"status":404,"path":"/a\"b","n":{"x":[1,2.5,-3],"big":18446744073709551615},
    "ok":true,"none":null,"text":"12","e":[],"status2":"404","zero":0,"name":"caf\u00e9"}"#;

#[test]
fn values_and_errors_by_table() {
    use EvalError as E;
    let json = |text: &str| -> Result<serde_json::Value, EvalError> {
        Ok(serde_json::from_str(text).unwrap())
    };
    let table = [
        ("json.status == 404", json("true")),
        ("json.status == 404.0 && json.status != 404.5", json("true")),
        ("json.status == '404'", json("false")),
        ("json.status >= 400 && json.status < 500", json("true")),
        ("json.path", json(r#""/a\"b""#)),
        ("json.name.size()", json("4")),
        ("json['status']", json("404")),
        ("json.n.x[2]", json("-3")),
        ("json.n.x[1] > json.n.x[0]", json("true")),
        ("json.n.big", json("18446744073709551615")),
        ("json.n.big > json.status", json("true")),
        ("json.none == null", json("true")),
        ("json.missing", Err(E::MissingField)),
        ("json.n.missing == 1", Err(E::MissingField)),
        ("json.n[0]", Err(E::MissingField)),
        ("json.n.x[3]", Err(E::OutOfRange)),
        ("json.n.x[-1]", Err(E::OutOfRange)),
        ("json.status.deeper", Err(E::WrongType)),
        ("json.path > 3", Err(E::WrongType)),
        ("json.path + 3", Err(E::WrongType)),
        ("!json.status", Err(E::WrongType)),
        ("has(json.status) && !has(json.other)", json("true")),
        ("has(json.other.deeper)", Err(E::MissingField)),
        ("has(json.none)", json("true")),
        // Division.
        ("json.status / json.zero", Err(E::DivisionByZero)),
        ("json.status % 0", Err(E::DivisionByZero)),
        ("json.status / 0.0 > 1e308", json("true")),
        ("7 / 2 == 3 && 7 / 2.0 == 3.5 && -7 % 3 == -1", json("true")),
        ("9223372036854775807 + 1", Err(E::Overflow)),
        ("-(-9223372036854775807 - 1)", Err(E::Overflow)),
        ("1u + 1", Err(E::WrongType)),
        ("json.n.x[1] * 2", json("5.0")),
        // One side that decides is enough, whatever is wrong with the other.
        ("json.missing == 1 || json.status == 404", json("true")),
        ("json.missing == 1 && json.status == 500", json("false")),
        ("json.missing == 1 || json.status == 500", Err(E::MissingField)),
        ("json.status == 404 ? 'a' : json.missing", json(r#""a""#)),
        // Lists.
        ("json.n.x.exists(v, v < 0)", json("true")),
        ("json.n.x.all(v, v > 0)", json("false")),
        ("json.n.x.exists_one(v, v > 2)", json("true")),
        ("json.n.x.map(v, v * 2)", json("[2,5.0,-6]")),
        ("json.n.x.filter(v, v > 0).size()", json("2")),
        ("json.n.x.map(v, v > 0, [v, 1])", json("[[1,1],[2.5,1]]")),
        ("[1, 0].exists(v, 1 / v > 0)", json("true")),
        ("[0, 1].exists(v, 1 / v > 0)", json("true")),
        ("[0, 1].map(v, 1 / v)", Err(E::DivisionByZero)),
        ("[[1, 2], [3]].map(l, l.map(v, v + 1))", json("[[2,3],[4]]")),
        ("[1, 2] + [3] == [1, 2, 3]", json("true")),
        ("{'a': 1, 'b': [2]} == {'b': [2], 'a': 1}", json("true")),
        ("json.n.exists(k, k == 'big')", json("true")),
        ("404 in [200, json.status] && !('x' in json.e)", json("true")),
        ("'status' in json", json("true")),
        ("3 in json.status", Err(E::WrongType)),
        // Texts.
        (
            "json.path.startsWith('/a') && json.path.endsWith('b') && json.path.contains('\"')",
            json("true"),
        ),
        ("json.path.matches('^/[a-z]\"')", json("true")),
        ("json.status.contains('4')", Err(E::WrongType)),
        ("int(json.text) + 1", json("13")),
        ("int(json.path)", Err(E::NotConvertible)),
        ("int(1e30)", Err(E::Overflow)),
        ("double('1.5') + 1", json("2.5")),
        ("string(json.status) + '!'", json(r#""404!""#)),
        // The record.
        ("key == 'user-7' && seq == 41 && size > 10", json("true")),
        ("headers.origin", json(r#""edge""#)),
        ("headers['raw'] == b'\\xff'", json("true")),
        ("headers.none", Err(E::MissingField)),
        ("has(headers.none)", json("false")),
        ("arrival - timestamp", json(r#""1s 500ms""#)),
        ("arrival - timestamp > duration('1s')", json("true")),
        ("timestamp == timestamp('2015-05-17T10:05:03Z')", json("true")),
        ("arrival.getHours() == 10 && arrival.getDayOfWeek() == 0", json("true")),
        ("timestamp + duration('1h')", json(r#""2015-05-17T11:05:03Z""#)),
        ("payload.contains('status2')", json("true")),
    ];
    for (source, expected) in table {
        let value = value_of(source, DOCUMENT);
        assert_eq!(value, expected, "{source}");
    }
}

#[test]
fn payloads_that_are_no_documents_have_a_defined_result() {
    for (payload, source, expected) in [
        (&b"plain text"[..], "json.a == 1", Err(EvalError::NotJson)),
        (b"plain text", "payload == 'plain text'", Ok(true.into())),
        (b"\xff\xfe", "payload == 'x'", Err(EvalError::NotJson)),
        (b"\xff\xfe", "size == 2", Ok(true.into())),
        (b"", "json.a == 1", Err(EvalError::NotJson)),
        (b"[1,2]", "json.a == 1", Err(EvalError::WrongType)),
        (b"[1,2]", "json[1] == 2", Ok(true.into())),
        (b"7", "json == 7", Ok(true.into())),
        (b"{} {}", "json.a == 1", Err(EvalError::NotJson)),
        // Of a name that comes twice the last counts.
        (br#"{"a":1,"a":2}"#, "json.a", Ok(2.into())),
    ] {
        assert_eq!(value_of(source, payload), expected, "{source}");
    }
    let large = [b"{\"a\":\"", &vec![b'x'; MAX_JSON][..], b"\"}"].concat();
    assert_eq!(value_of("has(json.a)", &large), Err(EvalError::TooLarge));
    assert_eq!(value_of("size > 1000000", &large), Ok(true.into()));
    let deep = [&vec![b'['; 10_000][..], &vec![b']'; 10_000][..]].concat();
    assert_eq!(value_of("json == 1", &deep), Err(EvalError::NotJson));
}

#[test]
fn what_takes_too_long_ends() {
    let numbers: Vec<String> = (0..2_000).map(|n| n.to_string()).collect();
    let list = format!("{{\"l\":[{}],\"t\":\"{}\"}}", numbers.join(","), "x".repeat(500_000));
    let costly = [
        "json.l.exists(a, json.l.exists(b, a == b + 5000))",
        "json.l.map(a, json.l.map(b, a * b)).size() > 0",
        "json.l.map(a, json.t + json.t).size() > 0",
        "json.l.exists(a, json.t.matches('y$'))",
        "json.l.all(a, json.t.contains('xy') || a >= 0)",
        "json.l.exists(a, json.l == json.l && a < 0)",
    ];
    for source in costly {
        assert_eq!(value_of(source, list.as_bytes()), Err(EvalError::TooExpensive), "{source}");
        let absorbed = format!("true || ({source})");
        assert_eq!(value_of(&absorbed, list.as_bytes()), Ok(true.into()), "{source}");
        // Nothing makes good for it.
        let absorbed = format!("({source}) || true");
        assert_eq!(value_of(&absorbed, list.as_bytes()), Err(EvalError::TooExpensive), "{source}");
    }
    assert_eq!(value_of("json.l.map(a, a + 1).size()", list.as_bytes()), Ok(2_000.into()));
    let many = format!("[{}]", vec!["0"; 200_000].join(","));
    assert_eq!(value_of("json.size()", many.as_bytes()), Err(EvalError::TooExpensive));
}

#[test]
fn only_the_fields_that_are_named_are_read() {
    let wanted = |source| {
        let expression = Expression::compile(source).unwrap();
        (expression.wanted.all, expression.wanted.fields.into_iter().collect::<Vec<_>>())
    };
    let fields = |names: &[&str]| (false, names.iter().map(|n| (*n).to_owned()).collect());
    assert_eq!(
        wanted("json.a == 1 && has(json.b.c) || json['d'] > json.a"),
        fields(&["a", "b", "d"])
    );
    assert_eq!(wanted("key == 'x'"), fields(&[]));
    assert_eq!(wanted("json.l.exists(x, x.deep == json.m)"), fields(&["l", "m"]));
    assert!(wanted("size(json) > 1").0 && wanted("json[key] == 1").0);
    // What is not wanted may be as large as it likes.
    let many = format!("{{\"l\":[{}],\"a\":1}}", vec!["0"; 200_000].join(","));
    assert_eq!(value_of("json.a", many.as_bytes()), Ok(1.into()));
}

#[test]
fn what_cannot_be_compiled_says_where() {
    let nested = format!("{}1{}", "(".repeat(60), ")".repeat(60));
    let long = format!("'{}' == key", "x".repeat(MAX_SOURCE));
    let sums = vec!["1"; 100].join("+");
    let wide = format!("size in [{}]", vec!["1"; 1_100].join(","));
    let table: [(&str, &str); 18] = [
        ("json.status = 404", "column 13: "),
        ("json.status ==", "column 15: "),
        ("", "column 1: "),
        ("json.a ==\n  &", "column 13: "),
        ("jsn.status == 404", "column 1: there is no \"jsn\" here; there are key, "),
        ("'jsn' == key && jsn.a", "column 17: there is no \"jsn\""),
        ("json.a.foo(3)", "column 8: there is no function \"foo\""),
        ("json.a.contains()", "column 8: contains() takes 2 arguments, not 1"),
        ("size(1, 2)", "column 1: size() takes 1 arguments, not 2"),
        ("key.matches('(')", "column 5: the pattern of matches() is not valid: "),
        ("key.matches(json.p)", "column 5: the pattern of matches() has to be a text"),
        ("key.matches('(a{1000}){1000}')", "column 5: the pattern of matches() takes more than"),
        ("x.y.Z{a: 1}", "a message cannot be used here"),
        ("has(json)", "column "),
        (&nested, "expression is nested more than 48 deep"),
        (&long, "expression of 4105 bytes; the limit is 4096"),
        (&sums, "expression is nested more than 48 deep"),
        (&wide, "expression has more than 1024 operations"),
    ];
    for (source, words) in table {
        let error = Expression::compile(source).map(drop).unwrap_err().to_string();
        assert!(error.starts_with(words), "{source}: {error}");
    }
    for (source, words) in [
        ("json.a + 1", "the result of a calculation"),
        ("404", "a number"),
        ("key", "a text"),
        ("[true]", "a list"),
        ("size(key)", "the result of a function"),
    ] {
        let error = Filter::compile(source).map(drop).unwrap_err().to_string();
        assert_eq!(error, format!("a filter has to be true or false, and this is {words}"));
    }
    assert!(Filter::compile("json.flag").is_ok() && Filter::compile("true").is_ok());
}

#[test]
fn a_filter_says_yes_no_or_why_not() {
    let bytes = batch(&[], br#"{"a":1}"#);
    let view = BatchView::parse(&bytes).unwrap().records().next().unwrap();
    for (source, expected) in [
        ("json.a == 1", Ok(true)),
        ("json.a == 2", Ok(false)),
        ("json.b == 2", Err(EvalError::MissingField)),
        ("json.a", Err(EvalError::WrongType)),
    ] {
        let filter = Filter::compile(source).unwrap();
        let record = Record::new(view, 0, filter.expression().wanted());
        assert_eq!(filter.matches(&record), expected, "{source}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn nothing_typed_panics(source in "[a-z.()\\[\\]{}?:&|!=<>+*/%'\"0-9, -]{0,40}", payload in "\\PC{0,40}") {
        if let Ok(expression) = Expression::compile(&source) {
            let bytes = batch(&[], payload.as_bytes());
            let view = BatchView::parse(&bytes).unwrap().records().next().unwrap();
            let record = Record::new(view, 0, expression.wanted());
            let _ = expression.value(&record).map(|value| value.words());
        }
    }
}

proptest! {
    #[test]
    fn numbers_compare_as_the_numbers_they_are(a: i64, b: u64, c: f64) {
        let exact = |v: &Value<'_>, w: &Value<'_>| number::order(v, w).unwrap();
        let (i, u, d) = (Value::Int(a), Value::UInt(b), Value::Double(c));
        prop_assert_eq!(exact(&i, &u), Some(i128::from(a).cmp(&i128::from(b))));
        prop_assert_eq!(exact(&i, &d), exact(&d, &i).map(std::cmp::Ordering::reverse));
        if c.abs() < 1e15 {
            prop_assert_eq!(exact(&i, &d), if a.abs() < 1 << 53 { (a as f64).partial_cmp(&c) } else { exact(&i, &d) });
        }
        prop_assert_eq!(exact(&Value::Double(a as f64), &Value::Double(c)), (a as f64).partial_cmp(&c));
    }

    #[test]
    fn a_document_is_read_as_it_is(n: i64, text in "\\PC{0,20}", list in prop::collection::vec(any::<u32>(), 0..5)) {
        let document = serde_json::json!({"n": n, "text": text, "list": list});
        let bytes = document.to_string().into_bytes();
        prop_assert_eq!(value_of("json", &bytes), Ok(document.clone()));
        prop_assert_eq!(value_of("json.text", &bytes), Ok(document["text"].clone()));
        prop_assert_eq!(value_of("json.list", &bytes), Ok(document["list"].clone()));
    }
}

#[test]
fn reasons_have_the_words_they_cross_the_wire_with() {
    let words: Vec<String> = EvalError::ALL.iter().map(EvalError::to_string).collect();
    assert_eq!(words, highwater_wire::UNANSWERED);
    assert!(EvalError::ALL.iter().enumerate().all(|(at, error)| error.index() == at));
}

#[test]
fn memory_is_bounded_by_what_an_expression_may_have() {
    let of = |source: &str| Expression::compile(source).unwrap().memory(2);
    assert!(of("json.a == 1") < 8 << 10);
    let pattern = of("key.matches('a')") - of("key.contains('a')");
    assert!((512 << 10..1 << 20).contains(&pattern), "{pattern}");
    let many = |n: usize| vec!["key.matches('a')"; n].join(" || ");
    assert!(Expression::compile(&many(16)).is_ok());
    let refused = Expression::compile(&many(17)).unwrap_err();
    assert!(matches!(refused, CompileError::Pattern { .. }), "{refused}");
}
