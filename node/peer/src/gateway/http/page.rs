//! The page at `/`: draws by `/api/v1`, shows the cluster, and is part of the program.
//!
//! It is made by Vite from `node/ui`. A build without Node has a plain one instead, which still draws.

use super::Front;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

// The files of `node/ui/dist`, by path; empty where it was not built.
include!(concat!(env!("OUT_DIR"), "/built_page.rs"));

/// What is served where Vite's page was not built.
const PLAIN: &[(&str, &[u8])] = &[
    ("/index.html", include_bytes!("page/page.html")),
    ("/page.css", include_bytes!("page/page.css")),
    ("/page.js", include_bytes!("page/page.js")),
];
const INDEX: &str = "/index.html";
/// Where the names of files tell their contents.
const HASHED: &str = "/assets/";

/// Nothing from elsewhere, and nothing inline; previews come as `data:`, a picture to be copied as `blob:`.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The files of this build's page.
fn files() -> &'static [(&'static str, &'static [u8])] {
    if BUILT.is_empty() { PLAIN } else { BUILT }
}

pub(super) fn router() -> Router<Front> {
    let routes = Router::new().route("/", get(page));
    files().iter().fold(routes, |routes, (path, _)| routes.route(path, get(file)))
}

/// The page, whatever this peer can do now. Health scripts ask for this path too and read the status
/// alone, so it says whether this peer serves.
async fn page(State(front): State<Front>) -> Response {
    let mut response = serve(INDEX);
    if !front.probes.health.reasons().is_empty() {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

async fn file(uri: Uri) -> Response {
    serve(uri.path())
}

fn serve(path: &str) -> Response {
    let Some((path, bytes)) = files().iter().find(|(known, _)| *known == path) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let caching = match path.starts_with(HASHED) {
        true => "public, max-age=31536000, immutable",
        // Small, and of this very version.
        false => "no-cache",
    };
    let headers = [
        (header::CONTENT_TYPE, media_type(path)),
        (header::CACHE_CONTROL, caching),
        (HeaderName::from_static("content-security-policy"), POLICY),
        (HeaderName::from_static("x-content-type-options"), "nosniff"),
        (HeaderName::from_static("referrer-policy"), "no-referrer"),
    ];
    (headers, *bytes).into_response()
}

fn media_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(files: &[(&str, &'static [u8])], path: &str) -> &'static str {
        let file = files.iter().find(|(known, _)| *known == path).expect("a file");
        std::str::from_utf8(file.1).expect("text")
    }

    #[test]
    fn the_page_has_nothing_inline_and_names_files_that_are_there() {
        for files in [PLAIN, files()] {
            let html = text(files, INDEX);
            assert!(!html.contains(" onclick=") && !html.contains(" style="));
            assert!(!html.contains("<style") && !html.contains("<script>"));
            let named = html.split("src=\"").chain(html.split("href=\"")).skip(1);
            let named = named.filter_map(|rest| rest.split('"').next());
            for path in named.filter(|path| path.starts_with('/')) {
                assert!(files.iter().any(|(known, _)| *known == path), "{path}");
                assert_ne!(media_type(path), "application/octet-stream", "{path}");
            }
            assert!(!html.contains("http://") && !html.contains("https://"));
        }
    }

    #[test]
    fn the_plain_page_asks_nothing_of_other_hosts() {
        for (path, _) in PLAIN {
            let text = text(PLAIN, path);
            assert!(!text.contains("http://") && !text.contains("https://"), "{path}");
        }
        assert_eq!(text(PLAIN, INDEX).matches("<script").count(), 1, "the file alone");
    }

    #[test]
    fn every_text_of_the_plain_page_is_there_in_both_languages() {
        let names = text(PLAIN, INDEX).split("data-text=\"").skip(1);
        let names = names.filter_map(|rest| rest.split('"').next());
        let languages = text(PLAIN, "/page.js").split_once("zh: {").expect("two languages");
        for name in names {
            let key = format!("{name}: ");
            assert!(languages.0.contains(&key) && languages.1.contains(&key), "{name}");
        }
    }
}
