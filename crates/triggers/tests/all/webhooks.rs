//! Signatures: published examples, wrong ones, repeated ones.

use kobza_model::Timestamp;
use kobza_triggers::WebhookScheme;
use kobza_triggers::webhook::{WebhookError, verify};

fn check(
    scheme: WebhookScheme,
    secret: &str,
    headers: &[(&'static str, &'static str)],
    body: &str,
    seconds: i64,
) -> Result<String, WebhookError> {
    let find = |name: &str| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    let now = Timestamp(seconds * 1_000_000);
    let answer = verify(Some(scheme), secret.as_bytes(), find, body.as_bytes(), now);
    if answer.is_ok() {
        // The headers say the same as the definition.
        assert_eq!(verify(None, secret.as_bytes(), find, body.as_bytes(), now), answer);
    }
    answer
}

#[test]
fn github() {
    // The example of GitHub's documentation.
    let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let secret = "It's a Secret to Everybody";
    let headers = [("x-hub-signature-256", signature), ("x-github-delivery", "72d3162e-cc78")];
    let scheme = WebhookScheme::GitHub;
    assert_eq!(check(scheme, secret, &headers, "Hello, World!", 0).as_deref(), Ok("72d3162e-cc78"));
    assert_eq!(check(scheme, secret, &headers, "Hello, World?", 0), Err(WebhookError::Signature));
    assert_eq!(check(scheme, "other", &headers, "Hello, World!", 0), Err(WebhookError::Signature));
    assert_eq!(check(scheme, "", &headers, "Hello, World!", 0), Err(WebhookError::Secret));
    let missing = Err(WebhookError::Missing("x-hub-signature-256"));
    assert_eq!(check(scheme, secret, &[], "Hello, World!", 0), missing);
    for bad in ["", "sha256=", "sha1=757107ea", "sha256=zz", "757107ea0eb2509fc211221cce984b8a"] {
        let headers = [("x-hub-signature-256", bad)];
        assert_eq!(
            check(scheme, secret, &headers, "Hello, World!", 0),
            Err(WebhookError::Signature)
        );
    }
    // An id that would not be safe in a key is replaced, always by the same.
    let odd = [headers[0], ("x-github-delivery", "../../x y")];
    let id = check(scheme, secret, &odd, "Hello, World!", 0).unwrap();
    assert!(id.chars().all(|c| c.is_ascii_hexdigit()) && id.len() == 32, "{id}");
}

#[test]
fn slack() {
    // The example of Slack's documentation.
    let body = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    let headers = [
        ("x-slack-request-timestamp", "1531420618"),
        (
            "x-slack-signature",
            "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
        ),
    ];
    let secret = "8f742231b10e8888abcd99yyyzzz85a5";
    let scheme = WebhookScheme::Slack;
    let id = check(scheme, secret, &headers, body, 1_531_420_620).unwrap();
    assert_eq!(check(scheme, secret, &headers, body, 1_531_420_700).unwrap(), id, "a repetition");
    assert_eq!(check(scheme, secret, &headers, body, 1_531_420_618 + 301), Err(WebhookError::Time));
    let later = [("x-slack-request-timestamp", "1531420900"), headers[1]];
    assert_eq!(check(scheme, secret, &later, body, 1_531_420_900), Err(WebhookError::Signature));
    let endless = [("x-slack-request-timestamp", "9223372036854775807"), headers[1]];
    assert_eq!(check(scheme, secret, &endless, body, 0), Err(WebhookError::Time));
}

#[test]
fn standard_webhooks() {
    // The example of the specification.
    let headers = [
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", "v1,bm9ldHU= v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    ];
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let scheme = WebhookScheme::Standard;
    let body = r#"{"test": 2432232314}"#;
    let id = check(scheme, secret, &headers, body, 1_614_265_330);
    assert_eq!(id.as_deref(), Ok("msg_p5jXN8AQM9LWM0D4loKWxJek"));
    assert_eq!(check(scheme, secret, &headers, "{}", 1_614_265_330), Err(WebhookError::Signature));
    assert_eq!(check(scheme, secret, &headers, body, 1_614_266_330), Err(WebhookError::Time));
    assert_eq!(check(scheme, "whsec_!", &headers, body, 1_614_265_330), Err(WebhookError::Secret));
    let other_id = [("webhook-id", "msg_other"), headers[1], headers[2]];
    assert_eq!(check(scheme, secret, &other_id, body, 1_614_265_330), Err(WebhookError::Signature));
}

#[test]
fn gitlab() {
    let headers = [("x-gitlab-token", "s3cret"), ("x-gitlab-event-uuid", "13792a34-cac6")];
    let scheme = WebhookScheme::GitLab;
    assert_eq!(check(scheme, "s3cret", &headers, "{}", 0).as_deref(), Ok("13792a34-cac6"));
    for wrong in ["s3cre", "s3cret ", "S3CRET"] {
        assert_eq!(check(scheme, wrong, &headers, "{}", 0), Err(WebhookError::Signature));
    }
    let long = "x".repeat((1 << 20) + 1);
    assert_eq!(check(scheme, "s3cret", &headers, &long, 0), Err(WebhookError::TooLong));
}
