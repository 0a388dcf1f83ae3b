use super::*;

fn env() -> Env {
    let mut env = Env::from_dotted([
        ("inputs.parameters.n", Value::str("3")),
        ("inputs.parameters.my-param", Value::str("x")),
        ("workflow.status", Value::str("Failed")),
        ("workflow.parameters", Value::str("[]")),
        ("workflow.parameters.json", Value::str(r#"[{"name":"a","value":"true"}]"#)),
        ("item", Value::map([("name".to_owned(), Value::str("first"))])),
        ("item.name", Value::str("first")),
        ("tasks.gone.outputs", Value::Nil),
    ]);
    env.now = Some("2024-03-01T12:30:05Z".parse().expect("a time"));
    env
}

fn text(source: &str) -> String {
    match eval(source, &env()) {
        Ok(value) => value.to_text(),
        Err(error) => format!("ERROR {error}"),
    }
}

#[test]
fn golden_language() {
    for (source, wanted) in [
        ("1 + 2 * 3", "7"),
        ("(1 + 2) * 3", "9"),
        ("7 / 2", "3.5"),
        ("4 / 2", "2"),
        ("7 % 4", "3"),
        ("2 ** 3 ** 2", "512"),
        ("-2 ** 2", "-4"),
        ("2 ^ 3", "8"),
        ("'a' + \"b\"", "ab"),
        ("`raw\\n`", "raw\\n"),
        (r#""\u0041\t""#, "A\t"),
        ("1 < 2 && 2 <= 2 || false", "true"),
        ("not (1 > 2) and true", "true"),
        ("!true || true", "true"),
        ("'a' in ['a', 'b']", "true"),
        ("'c' not in ['a', 'b']", "true"),
        ("'name' in item", "true"),
        ("'hello' matches '^h.*o$'", "true"),
        ("'hello' contains 'ell' && 'hello' startsWith 'he' && 'hello' endsWith 'lo'", "true"),
        ("1..4", "[1,2,3,4]"),
        ("[1,2,3][1:]", "[2,3]"),
        ("[1,2,3][:2]", "[1,2]"),
        ("[1,2,3][-1]", "3"),
        ("'hello'[1:3]", "el"),
        ("true ? 'a' : 'b'", "a"),
        ("false ? 1 : true ? 2 : 3", "2"),
        ("if 1 > 2 { 'x' } else if true { 'y' } else { 'z' }", "y"),
        ("let x = 2; let y = x * 2; x + y", "6"),
        ("nil ?? 'd'", "d"),
        ("item.missing ?? 'd'", "d"),
        ("item?.missing?.deep ?? 'd'", "d"),
        ("tasks.gone.outputs?.parameters.x ?? 'none'", "none"),
        ("get(item, 'type') ?? 'always'", "always"),
        ("item['name']", "first"),
        ("inputs.parameters['my-param']", "x"),
        ("{a: 1, 'b': [true, nil]}", r#"{"a":1,"b":[true,null]}"#),
        ("filter([1, 3], {# > 1})", "[3]"),
        ("filter([1, 3], # > 1)", "[3]"),
        ("filter([{a: 1}, {a: 2}], .a == 2)", r#"[{"a":2}]"#),
        ("map([1, 2], { # * 2 })", "[2,4]"),
        ("map(1..3, #index)", "[0,1,2]"),
        ("reduce(1..4, #acc + #)", "10"),
        ("reduce(1..4, #acc + #, 100)", "110"),
        ("all([1, 2], # > 0) && none([1], # > 1) && any([1, 2], # == 2)", "true"),
        ("one([1, 2, 2], # == 1)", "true"),
        ("count([1, 2, 2], # == 2)", "2"),
        ("find([1, 2, 3], # > 1)", "2"),
        ("findLastIndex([1, 2, 3], # > 1)", "2"),
        ("groupBy([1, 2, 3], # % 2)", r#"{"0":[2],"1":[1,3]}"#),
        ("sortBy([{a: 2}, {a: 1}], .a)", r#"[{"a":1},{"a":2}]"#),
        ("sort([3, 1, 2], 'desc')", "[3,2,1]"),
        ("sum([1, 2, 3])", "6"),
        ("sum([1, 2], # * 2)", "6"),
        ("max([1, 5, 3]) + min(4, 2)", "7"),
        ("mean([1, 2])", "1.5"),
        ("len('привет')", "6"),
        ("split('a,b', ',')", r#"["a","b"]"#),
        ("join(['a', 'b'], '-')", "a-b"),
        ("['a', 'b'] | join('\",\"')", "a\",\"b"),
        ("concat(['always'], true ? ['test'] : []) | toJSON()", "[\n  \"always\",\n  \"test\"\n]"),
        ("'[1]' | fromJSON() | len()", "1"),
        ("fromJSON('{\"a\": 1.50}').a", "1.5"),
        ("int('12') + 1", "13"),
        ("string(1.0)", "1"),
        ("upper('a') + lower('B') + trim('  c ')", "Abc"),
        ("replace('aaa', 'a', 'b')", "bbb"),
        ("toBase64('hi')", "aGk="),
        ("keys({b: 1, a: 2})", r#"["b","a"]"#),
        ("uniq([1, 1, 2])", "[1,2]"),
        ("flatten([1, [2, [3]]])", "[1,2,3]"),
        ("/* c */ 1 // end", "1"),
        ("notify ?? 1", "ERROR unknown name notify"),
        ("item.name.x", "ERROR cannot fetch x from string"),
        ("nil.a", "ERROR cannot fetch a from nil"),
        ("1 + 'a'", "ERROR invalid operation: + (mismatched types int and string)"),
        ("'a' ? 1 : 2", "ERROR non-bool expression (type string) used as condition"),
    ] {
        assert_eq!(text(source), wanted, "{source}");
    }
}

#[test]
fn golden_argo_functions() {
    for (source, wanted) in [
        ("asInt(inputs.parameters.n) * 10", "30"),
        ("asFloat('1.5') * 2", "3"),
        ("asInt('x')", "ERROR \"x\" is not an integer"),
        ("toJson(filter([1, 3], {# > 1}))", "[3]"),
        ("toJson('a<b')", "\"a\\u003cb\""),
        ("jsonpath(workflow.parameters.json, '$[0].value') == 'true'", "true"),
        (r#"jsonpath('{"a": {"b": [1, 2]}}', '$.a.b[*]')"#, "[1,2]"),
        (r#"jsonpath('{"a": {"b": [1, 2]}}', '$..b[-1:]')"#, "[2]"),
        (r#"jsonpath('[{"k":"a","v":1},{"k":"b","v":2}]', "$[?(@.k=='b')].v")"#, "[2]"),
        ("workflow.status == 'Failed'", "true"),
        ("sprig.trim('  a ')", "a"),
        ("sprig.int('12')", "12"),
        ("sprig.int('x')", "0"),
        ("sprig.date('2006', '2024-02-03T04:05:06Z')", "2024"),
        (
            "sprig.dateInZone('Jan _2 15:04:05 MST', 1700000000, 'Europe/Kyiv')",
            "Nov 15 00:13:20 EET",
        ),
        ("sprig.date('Mon 2 Jan 2006 03:04PM', sprig.now())", "Fri 1 Mar 2024 12:30PM"),
        ("now().Year() + now().YearDay()", "2085"),
        ("(now() - date('2024-03-01')).Hours() > 12", "true"),
        ("now().Add(duration('1h')).Format('15:04')", "13:30"),
        ("sprig.replace('bar', 'baz', 'foobarbaz')", "foobazbaz"),
        ("sprig.default('d', '')", "d"),
        ("sprig.ternary('a', 'b', true)", "a"),
        ("sprig.list(1, 2) | len()", "2"),
        ("sprig.dict('a', 1)", r#"{"a":1}"#),
        ("sprig.dig('a', 'b', 'none', {a: {b: 2}})", "2"),
        ("sprig.snakecase('FirstName')", "first_name"),
        ("sprig.camelcase('http_server')", "HttpServer"),
        ("sprig.trunc(-3, 'abcdef')", "def"),
        ("sprig.regexReplaceAll('a(x*)b', '-ab-axxb-', '${1}W')", "-W-xxW-"),
        (
            "sprig.sha256sum('a')",
            "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
        ),
        ("sprig.semverCompare('^1.2.0', '1.4.3')", "true"),
        ("sprig.until(3)", "[0,1,2]"),
        ("sprig.add(1, 2, 3)", "6"),
        ("sprig.round(3.14159, 2)", "3.14"),
        ("sprig.mustToJson([1])", "[1]"),
        ("sprig.env('HOME')", "ERROR unknown name sprig.env"),
        ("sprig.uuidv4() != sprig.uuidv4()", "true"),
    ] {
        assert_eq!(text(source), wanted, "{source}");
    }
}

#[test]
fn hostile_texts_end_with_errors() {
    for source in [
        "0..1000000000000",
        "sprig.repeat(1000000000, 'abcdefgh')",
        "repeat('abcdefgh', 100000000)",
        "map(1..2000, map(1..2000, #))",
        "sprig.until(99999999999)",
        "'x' matches '(((a{100}){100}){100})'",
        "",
        "(",
        "1 +",
        "foo(",
        "'abc",
        "{a:",
        "1 2",
        "a..",
        "@",
    ] {
        assert!(eval(source, &env()).is_err(), "{source}");
    }
    for (open, close) in [("(", ")"), ("[", "]"), ("-", ""), ("!", ""), ("len(", ")")] {
        let source = format!("{}1{}", open.repeat(50_000), close.repeat(50_000));
        assert!(eval(&source, &env()).is_err(), "{open}");
    }
    assert!(eval(&format!("1{}", "+1".repeat(50_000)), &env()).is_err());
    assert!(eval(&format!("item{}", ".a".repeat(40_000)), &env()).is_err());
}

#[test]
fn variables_are_found() {
    let program = Program::parse(
        "steps['a-b'].outputs.result == 'x' ? map(tasks.c.outputs, {#.d}) : f(inputs[item])",
    )
    .expect("an expression");
    let mut found: Vec<String> = program.variables().iter().map(|p| p.join("/")).collect();
    found.sort();
    assert_eq!(found, ["inputs", "item", "steps/a-b/outputs/result", "tasks/c/outputs"]);
    assert_eq!(
        Program::parse("tasks['a'].x").expect("one").reference(),
        Some(vec!["tasks".to_owned(), "a".to_owned(), "x".to_owned()])
    );
    assert_eq!(Program::parse("a + b").expect("one").reference(), None);
}

#[test]
fn go_times() {
    for (layout, source) in [
        ("2006-01-02T15:04:05.999Z07:00", "2024-02-29T23:59:58.5+02:00"),
        ("Monday, 02-Jan-06 15:04:05 -0700", "Thursday, 29-Feb-24 23:59:58 +0200"),
        ("Jan _2 3:04PM 2006", "Feb  9 1:05AM 2024"),
    ] {
        let time = super::go_time::parse(layout, source, &jiff::tz::TimeZone::UTC);
        let time = time.unwrap_or_else(|| panic!("{layout} reads {source}"));
        assert_eq!(super::go_time::format(&time, layout), source, "{layout}");
    }
    for (text, nanos) in [("1h30m", 5_400_000_000_000), ("-1.5s", -1_500_000_000), ("0", 0)] {
        assert_eq!(super::go_time::parse_duration(text), Some(nanos), "{text}");
    }
    for bad in ["", "1", "h", "1x", "1h-2m"] {
        assert_eq!(super::go_time::parse_duration(bad), None, "{bad}");
    }
    assert_eq!(super::go_time::duration_text(3_723_500_000_000), "1h2m3.5s");
}
