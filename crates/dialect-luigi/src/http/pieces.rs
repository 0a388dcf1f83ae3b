//! Long replies: a list of fifty thousand tasks takes tens of megabytes. It is read and sent piece by
//! piece, at the pace of whoever reads it, so that it holds up no worker and is nowhere whole.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::{StreamExt as _, stream};
use kobza_model::{Json, RunId};

use super::{HostError, MachineHost, OPENING};

/// Pieces that are sent at once; a longer list leaves room between its pieces, so that workers find
/// a processor free while somebody looks at fifty thousand tasks.
const AT_ONCE: u32 = 5;
/// Between the pieces of a longer one.
const PAUSE: Duration = Duration::from_millis(1);

/// What is still to be sent.
enum Rest {
    Text(String, Option<Json>),
    /// With the number of pieces that were sent.
    Session(Json, u32),
    Nothing,
}

struct Piece {
    text: String,
    session: Option<Json>,
    replaces: bool,
    tentative: bool,
}

async fn piece(host: &dyn MachineHost, run: RunId, arguments: Json) -> Result<Piece, HostError> {
    let mut reply = host.call(run, "$read", arguments).await?;
    let text = match reply["text"].take() {
        Json::String(text) => text,
        _ => String::new(),
    };
    Ok(Piece {
        text,
        session: Some(reply["session"].take()).filter(Json::is_number),
        replaces: reply["replace"] == true,
        tentative: reply["tentative"] == true,
    })
}

fn next(session: &Json) -> Json {
    serde_json::json!({ "session": session })
}

/// The reply to a call of a method that answers in pieces.
pub(super) async fn read(
    host: Arc<dyn MachineHost>,
    run: RunId,
    method: &str,
    data: String,
) -> Result<Body, HostError> {
    let arguments = serde_json::json!({ "method": method, "data": data });
    let mut last = piece(&*host, run, arguments).await?;
    let mut text = format!("{OPENING}{}", last.text);
    while last.tentative
        && let Some(session) = &last.session
    {
        last = piece(&*host, run, next(session)).await?;
        if last.replaces {
            text = OPENING.to_owned();
        }
        text.push_str(&last.text);
    }
    let Some(session) = last.session else {
        text.push('}');
        return Ok(Body::from(text));
    };
    let begun = Rest::Text(text, Some(session));
    let pieces = stream::unfold((host, begun), move |(host, rest)| async move {
        let (text, session) = match rest {
            Rest::Text(text, session) => (text, session.map(|session| (session, 1))),
            Rest::Session(session, sent) => {
                if sent >= AT_ONCE {
                    tokio::time::sleep(PAUSE).await;
                }
                match piece(&*host, run, next(&session)).await {
                    Ok(piece) => (piece.text, piece.session.map(|session| (session, sent + 1))),
                    // The reader sees that its reply was cut off, and asks again.
                    Err(error) => {
                        return Some((Err(std::io::Error::other(error)), (host, Rest::Nothing)));
                    }
                }
            }
            Rest::Nothing => return None,
        };
        let (text, rest) = match session {
            Some((session, sent)) => (text, Rest::Session(session, sent)),
            None => (text + "}", Rest::Nothing),
        };
        Some((Ok(Bytes::from(text)), (host, rest)))
    });
    // Whoever compresses it asks once more behind its end.
    Ok(Body::from_stream(pieces.fuse()))
}
