//! The page at `/`: draws by `/api/v1`, and is part of the program.

use super::Front;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

const HTML: &str = include_str!("page/page.html");
const CSS: &str = include_str!("page/page.css");
const JS: &str = include_str!("page/page.js");

/// Nothing from elsewhere, and nothing inline; previews come as `data:`.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn router() -> Router<Front> {
    Router::new()
        .route("/", get(page))
        .route("/page.css", get(async || serve("text/css; charset=utf-8", CSS)))
        .route("/page.js", get(async || serve("text/javascript; charset=utf-8", JS)))
}

/// The page, whatever this peer can do now. Health scripts ask for this path too and read the status
/// alone, so it says whether this peer serves.
async fn page(State(front): State<Front>) -> Response {
    let mut response = serve("text/html; charset=utf-8", HTML);
    if !front.probes.health.reasons().is_empty() {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

fn serve(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        // Small, and of this very version.
        (header::CACHE_CONTROL, "no-cache"),
        (HeaderName::from_static("content-security-policy"), POLICY),
        (HeaderName::from_static("x-content-type-options"), "nosniff"),
        (HeaderName::from_static("referrer-policy"), "no-referrer"),
    ];
    (headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_asks_nothing_of_other_hosts_and_has_nothing_inline() {
        for (name, text) in [("html", HTML), ("css", CSS), ("js", JS)] {
            assert!(!text.contains("http://") && !text.contains("https://"), "{name}");
        }
        assert!(
            !HTML.contains(" onclick=") && !HTML.contains(" style=") && !HTML.contains("<style")
        );
        assert_eq!(HTML.matches("<script").count(), 1, "the file alone");
    }

    #[test]
    fn every_text_of_the_page_is_there_in_both_languages() {
        let names = HTML.split("data-text=\"").skip(1).filter_map(|rest| rest.split('"').next());
        let (english, chinese) = JS.split_once("zh: {").expect("two languages");
        for name in names {
            let key = format!("{name}: ");
            assert!(english.contains(&key) && chinese.contains(&key), "{name}");
        }
    }
}
