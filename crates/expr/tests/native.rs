//! The native template language: rendering, and that no value can become code.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::process::Command;

use kobza_expr::native::{
    Context, Mode, TaskReferences, check, check_expression, eval, is_true, render_json,
    render_shell, render_sql, render_text, render_value, shell_quote,
};
use serde_json::{Value as Json, json};

const HOSTILE: &[&str] = &[
    "plain",
    "",
    "two words",
    "'",
    "\"",
    "a'b\"c`d",
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned",
    "\n touch pwned\n",
    "' ; touch pwned ; '",
    "\" ; touch pwned ; \"",
    "$HOME ${HOME} \\$HOME",
    "{{ 7 * 7 }}",
    "{% for i in range(3) %}x{% endfor %}",
    "EOF\ntouch pwned\nEOF",
    "*",
    "-n",
    "\\",
    "a\\",
    "ünïcödé 🚀",
    "x'); drop table t; --",
    "\u{E000}0\u{E001}",
];

fn context(values: Json) -> Context {
    Context::new(values.as_object().unwrap())
}

fn run(shell: &str, script: &str, env: &[(String, String)]) -> String {
    let folder = std::env::temp_dir().join(format!("kobza-expr-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let output = Command::new(shell)
        .arg("-ec")
        .arg(script)
        .envs(env.iter().cloned())
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(!folder.join("pwned").exists(), "{script} ran a value");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_shell_sees_exactly_the_value_wherever_it_stands() {
    let places: &[(&str, &str, &str)] = &[
        ("printf '%s' {{ v }}", "", ""),
        ("printf '%s' a{{ v }}b", "a", "b"),
        ("printf '%s' \"a{{ v }}b\"", "a", "b"),
        ("printf '%s' 'a{{ v }}b'", "a", "b"),
        ("x={{ v }}; printf '%s' \"$x\"", "", ""),
        ("x=\"$(printf '%s.' {{ v }})\"; printf '%s' \"${x%.}\"", "", ""),
        ("x=\"$(printf '%s.' \"{{ v }}\")\"; printf '%s' \"${x%.}\"", "", ""),
        ("x=`printf '%s.' {{ v }}`; printf '%s' \"${x%.}\"", "", ""),
        ("printf '%s' \"${nothing:-{{ v }}}\"", "", ""),
        ("# it's {{ v }}\nprintf ok", "ok", "-"),
        ("case x in x) printf '%s' {{ v }};; esac", "", ""),
        ("(printf '%s' {{ v }})", "", ""),
        ("echo $# >/dev/null; printf '%s' {{ v }}", "", ""),
        ("cat <<EOF\n[{{ v }}]\nEOF\n", "[", "]\n"),
        ("cat <<-EOF\n\t[{{ v }}]\n\tEOF\nprintf done", "[", "]\ndone"),
    ];
    for shell in ["sh", "bash"] {
        for value in HOSTILE {
            let context = context(json!({ "v": value }));
            for (template, before, after) in places {
                let text = render_shell(template, &context).unwrap();
                assert!(
                    !text.script.contains("pwned") && !text.script.contains("49"),
                    "{}",
                    text.script
                );
                let expected = if *after == "-" {
                    (*before).to_owned()
                } else {
                    format!("{before}{value}{after}")
                };
                assert_eq!(run(shell, &text.script, &text.env), expected, "{template} {value:?}");
            }
        }
    }
}

#[test]
fn quoted_here_documents_hold_the_value_or_refuse_it() {
    let template = "cat <<'EOF'\n{{ v }}\nEOF\n";
    for value in HOSTILE {
        let rendered = render_shell(template, &context(json!({ "v": value })));
        if value.split('\n').any(|line| line == "EOF") {
            let error = rendered.unwrap_err().to_string();
            assert!(error.contains("here-document"), "{error}");
        } else {
            let text = rendered.unwrap();
            assert_eq!(run("sh", &text.script, &text.env), format!("{value}\n"));
        }
    }
}

#[test]
fn lists_are_words_and_arithmetic_takes_numbers_only() {
    let c = context(json!({"files": ["a b", "c'd"], "n": 41, "s": "a[$(touch pwned)]"}));
    let text =
        render_shell("printf '<%s>' {{ files }}; printf '%s' $(( {{ n }} + 1 ))", &c).unwrap();
    assert_eq!(run("bash", &text.script, &text.env), "<a b><c'd>42");
    let error = render_shell("echo $(( {{ s }} ))", &c).unwrap_err();
    assert_eq!(
        error.to_string(),
        "only a number can stand inside $(( )) (convert it with `| int`)"
    );
}

#[test]
fn raw_is_inserted_and_loses_its_rawness_when_worked_on() {
    let c = context(json!({"v": "$(echo hi)"}));
    let text = render_shell("echo {{ v | raw }}", &c).unwrap();
    assert_eq!(run("sh", &text.script, &text.env), "hi\n");
    for template in [
        "printf '%s' {{ v | raw | trim }}",
        "printf '%s' {{ (v | raw) ~ '' }}",
        "printf '%s' {{ v | tojson | fromjson }}",
        "printf '%s' {{ [v] | join(',') }}",
        "printf '%s' {{ v | quote }}",
        "printf '%s' {{ v.strip() }}",
        "printf '%s' {{ v | replace('x', 'y') }}",
    ] {
        let text = render_shell(template, &c).unwrap();
        assert_eq!(run("sh", &text.script, &text.env), "$(echo hi)", "{template}");
    }
}

#[test]
fn captured_values_are_refused_rather_than_lost() {
    let c = context(json!({"v": "x"}));
    let template = "{% set y %}{{ v }}{% endset %}echo {{ y }}";
    let error = render_shell(template, &c).unwrap_err().to_string();
    assert!(error.contains("set block"), "{error}");
    let forged = context(json!({"v": "\u{E0F0}0\u{E0F1}"}));
    assert!(render_shell("echo {{ v }}", &forged).is_err());
    assert!(render_shell("echo {{ v | raw }}", &forged).is_err());
    assert!(check("echo \u{E0F0}0\u{E0F1}", Mode::Shell).is_err());
}

#[test]
fn nul_and_huge_values_do_not_reach_a_shell() {
    for value in ["a\0b".to_owned(), "x".repeat(200_000)] {
        assert!(render_shell("echo {{ v }}", &context(json!({ "v": value }))).is_err());
    }
}

#[test]
fn sql_binds() {
    let table: &[(&str, Json, &str, Json)] = &[
        ("select {{ v }}", json!("x' or 1=1"), "select $1", json!(["x' or 1=1"])),
        ("select '{{ v }}'", json!(5), "select $1", json!(["5"])),
        ("a like '%{{ v }}%'", json!("'"), "a like ('%' || $1 || '%')", json!(["'"])),
        ("a in ({{ v }})", json!([1, "b"]), "a in ($1, $2)", json!([1, "b"])),
        ("a in ({{ v }})", json!([]), "a in (NULL)", json!([])),
        ("{{ v }}, {{ v }}", json!(null), "$1, $2", json!([null, null])),
        ("select {{ v }}", json!({"a": [1]}), "select $1", json!(["{\"a\":[1]}"])),
        ("select 1 -- {{ v }}\n, 2", json!("\ndrop"), "select 1 -- \n, 2", json!([])),
        ("select /* {{ v }} */ 1", json!("*/ drop"), "select /*  */ 1", json!([])),
        ("select * from {{ v | ident }}", json!("a\"b"), "select * from \"a\"\"b\"", json!([])),
        ("select * from {{ v | raw }}", json!("a.b"), "select * from a.b", json!([])),
        ("select 'it''s', {{ v }}", json!(1.5), "select 'it''s', $1", json!([1.5])),
    ];
    for (template, value, statement, params) in table {
        let text = render_sql(template, &context(json!({ "v": value }))).unwrap();
        assert_eq!(text.statement, *statement);
        assert_eq!(Json::Array(text.params), *params);
    }
    let error = render_sql("select \"{{ v }}\"", &context(json!({"v": "x"}))).unwrap_err();
    assert!(error.to_string().contains("ident"), "{error}");
}

#[test]
fn dates() {
    let c = context(json!({
        "start": "2013-03-10T02:30:00.000000Z",
        "day": "2024-02-29",
        "kyiv": "2024-12-31T23:30:00-05:00",
    }));
    let table = [
        ("{{ start | date }}", "2013-03-10"),
        ("{{ start | ds }}", "2013-03-10"),
        ("{{ start | ds_nodash }}", "20130310"),
        ("{{ start | ts }}", "2013-03-10T02:30:00+00:00"),
        ("{{ start | iso }}", "2013-03-10T02:30:00+00:00"),
        ("{{ start | ts_nodash }}", "20130310T023000"),
        ("{{ start | days(-10) | date }}", "2013-02-28"),
        ("{{ start | hours(-3) }}", "2013-03-09T23:30:00+00:00"),
        ("{{ start | date('%Y/%m') }}", "2013/03"),
        ("{{ start | epoch }}", "1362882600"),
        ("{{ start | timezone('Europe/Kyiv') | strftime('%H:%M') }}", "04:30"),
        ("{{ day | months(12) }}", "2025-02-28"),
        ("{{ day | days(1) }}", "2024-03-01"),
        ("{{ kyiv | date }}", "2024-12-31"),
        ("{{ day | first_of_month }} {{ day | last_of_month }}", "2024-02-01 2024-02-29"),
    ];
    for (template, expected) in table {
        assert_eq!(render_text(template, &c).unwrap(), expected, "{template}");
    }
    for template in ["{{ 'soon' | date }}", "{{ 5 | date }}", "{{ day | days(99999999999) }}"] {
        assert!(render_text(template, &c).is_err(), "{template}");
    }
}

#[test]
fn values_keep_their_types() {
    let c = context(json!({"n": 3, "list": [1, {"a": null}], "s": "x", "f": 0.5}));
    assert_eq!(render_value("{{ n }}", &c).unwrap(), json!(3));
    assert_eq!(render_value(" {{ list }} ", &c).unwrap(), json!([1, {"a": null}]));
    assert_eq!(render_value("{{ n }}{{ n }}", &c).unwrap(), json!("33"));
    assert_eq!(render_value("n={{ n }}", &c).unwrap(), json!("n=3"));
    assert_eq!(render_value("{{ n > 2 }}", &c).unwrap(), json!(true));
    assert_eq!(render_value("{{ f }}", &c).unwrap(), json!(0.5));
    assert_eq!(render_value("{{ {'k': s} }}", &c).unwrap(), json!({"k": "x"}));
    assert_eq!(render_value("no template", &c).unwrap(), json!("no template"));
    assert_eq!(
        render_json(&json!({"a": ["{{ n }}", 1], "{{ s }}": "{{ s }}!"}), &c).unwrap(),
        json!({"a": [3, 1], "{{ s }}": "x!"})
    );
    assert_eq!(eval("n + 1", &c).unwrap(), json!(4));
    assert!(is_true("{{ n == 3 and s }}", &c).unwrap());
    assert!(!is_true("n > 3", &c).unwrap());
}

#[test]
fn a_template_in_a_value_is_text() {
    let c = context(json!({"v": "{{ secret }}", "secret": "s3"}));
    assert_eq!(render_text("{{ v }}", &c).unwrap(), "{{ secret }}");
    assert_eq!(render_value("{{ v }}", &c).unwrap(), json!("{{ secret }}"));
}

#[test]
fn errors_say_what_and_where() {
    let c = context(json!({"params": {"a": 1}}));
    let cases = [
        ("{{ parms.a }}", "`parms.a` is undefined", 1, 4),
        ("x\ny {{ params.b }}", "`params.b` is undefined", 2, 6),
        (
            "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
            "the template does too much work",
            0,
            0,
        ),
    ];
    for (template, message, line, column) in cases {
        let error = render_text(template, &c).unwrap_err();
        assert_eq!(error.message, message);
        if line > 0 {
            assert_eq!((error.line, error.column), (line, column), "{template}");
        }
    }
    for mode in [Mode::Text, Mode::Shell, Mode::Sql] {
        let error = check("ok\n  {{ a b }}", mode).unwrap_err();
        assert_eq!(error.line, 2, "{error:?}");
    }
    assert!(check_expression("a ==").is_err());
    let error = check("{{ 'a|b' }} {{ x | upper }}\n{{ y | uper }}", Mode::Shell).unwrap_err();
    assert_eq!((error.line, error.column), (2, 8));
    assert_eq!(error.message, "there is no filter `uper`");
    assert!(check("{{ x | ident }}", Mode::Shell).is_err());
    assert!(check("{{ x | ident }}", Mode::Sql).is_ok());
    assert_eq!(check_expression("x | nosuch").unwrap_err().column, 5);
    assert!(check_expression("x | default('|nosuch') | length > 1").is_ok());
    assert!(render_text("{{ 'x' * 99999999 }}", &c).is_err());
}

#[test]
fn references_are_found_without_rendering() {
    let r = check(
        "{{ tasks.a.result }} {{ tasks.g.b.output.k | date }} {{ var.x }} {% for i in range(3) %}{{ loop.index }}{% endfor %}",
        Mode::Shell,
    )
    .unwrap();
    assert_eq!(r.roots().into_iter().collect::<Vec<_>>(), ["tasks", "var"]);
    assert_eq!(r.tasks(), TaskReferences::Paths(vec!["a.result", "g.b.output.k"]));
    assert_eq!(r.below("var").collect::<Vec<_>>(), ["x"]);
    assert_eq!(check_expression("tasks[x].result").unwrap().tasks(), TaskReferences::Any);
}

#[test]
fn quoting_words() {
    assert_eq!(shell_quote("a-b/c.txt"), "a-b/c.txt");
    assert_eq!(shell_quote(""), "''");
    for value in HOSTILE {
        assert_eq!(run("sh", &format!("printf '%s' {}", shell_quote(value)), &[]), *value);
    }
}
