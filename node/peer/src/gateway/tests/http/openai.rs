//! `/v1`.

use super::*;
use crate::ports::engine::Preview;

const DRAW: &str = "/v1/images/generations";

fn again(body: &Value, count: &str) -> Call<Body> {
    with(post(DRAW, body), "x-stainless-retry-count", count)
}

#[tokio::test(start_paused = true)]
async fn pictures_come_as_bytes_or_as_addresses_that_work() {
    let door = door();
    let body =
        json!({ "prompt": "a cat", "n": 2, "size": "64x64", "seed": 5, "model": "dall-e-2" });
    let told = door.drawn(post(DRAW, &body)).await;
    assert_eq!(told.status, StatusCode::OK, "{:?}", told.body);
    let answer = told.json();
    assert_eq!(answer["data"].as_array().map(Vec::len), Some(2));
    assert!(answer["data"][0]["b64_json"].is_string() && answer["created"].is_u64());
    assert!(!told.header("x-request-id").is_empty());
    let body = json!({ "prompt": "a cat", "response_format": "url" });
    let told = door.drawn(with(post(DRAW, &body), "host", "draw.lan:7860")).await;
    let url = told.json()["data"][0]["url"].as_str().expect("an address").to_owned();
    let path = url.strip_prefix("http://draw.lan:7860").expect("absolute");
    let picture = door.get(path).await;
    assert_eq!((picture.status, picture.header("content-type")), (StatusCode::OK, "image/png"));
}

#[tokio::test(start_paused = true)]
async fn pictures_come_in_the_format_that_is_asked_for() {
    use base64::Engine as _;
    let door = door();
    for (format, head) in [("jpeg", &b"\xff\xd8\xff"[..]), ("webp", b"RIFF"), ("png", b"\x89PNG")] {
        let body = json!({ "prompt": "a cat", "output_format": format, "output_compression": 80 });
        let told = door.drawn(post(DRAW, &body)).await.json();
        assert_eq!((&told["output_format"], &told["size"]), (&json!(format), &json!("32x16")));
        let sent = told["data"][0]["b64_json"].as_str().expect("base64");
        let sent = base64::engine::general_purpose::STANDARD.decode(sent).expect("base64");
        assert!(sent.starts_with(head), "{format}");
        let body = json!({ "prompt": "a cat", "output_format": format, "response_format": "url" });
        let told = door.drawn(post(DRAW, &body)).await.json();
        let picture = door.get(told["data"][0]["url"].as_str().expect("an address")).await;
        assert_eq!(picture.header("content-type"), format!("image/{format}"));
        assert!(picture.body.starts_with(head), "{format}");
    }
    let path = format!("/api/v1/artifacts/{}?format=gif", Digest([1; 32]));
    assert_eq!(door.get(&path).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn faults_are_told_in_the_librarys_shape() {
    let door = door();
    let check = async |body: Value, param: &str| {
        let told = door.post(DRAW, &body).await;
        let error = &told.json()["error"];
        assert_eq!((told.status, &error["param"]), (StatusCode::BAD_REQUEST, &json!(param)));
        assert_eq!(error["type"], "invalid_request_error");
        assert_eq!(told.header("x-should-retry"), "false");
    };
    check(json!({}), "prompt").await;
    check(json!({ "prompt": "a cat", "n": 0 }), "n").await;
    check(json!({ "prompt": "a cat", "size": "large" }), "size").await;
    check(json!({ "prompt": "a cat", "output_format": "svg" }), "output_format").await;
    check(json!({ "prompt": "a cat", "output_compression": 101 }), "output_compression").await;
    check(json!({ "prompt": "a cat", "background": "transparent" }), "background").await;
    door.log.status.send_modify(|status| (status.is_leader, status.leader) = (false, None));
    let none = ProposeError::NotLeader { leader: None };
    *door.log.failure.lock().expect("no panic") = Some(none);
    let told = door.post(DRAW, &json!({ "prompt": "a cat" })).await;
    assert_eq!(told.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((told.header("x-should-retry"), told.header("retry-after")), ("true", "1"));
    assert_eq!(told.json()["error"]["type"], "server_error");
}

#[tokio::test(start_paused = true)]
async fn equal_calls_are_two_jobs_and_a_repeated_one_is_the_same() {
    let door = door();
    let body = json!({ "prompt": "a cat" });
    let (first, second) = tokio::select! {
        both = async { tokio::join!(door.send(again(&body, "0")), door.send(again(&body, "0"))) } => both,
        () = door.draw() => panic!("the worker never ends"),
    };
    assert_eq!(door.jobs(), 2, "each has its own picture");
    assert_ne!(first.header("x-job-id"), second.header("x-job-id"));
    let repeated = door.drawn(again(&body, "1")).await;
    assert_eq!((repeated.status, door.jobs()), (StatusCode::OK, 2), "{:?}", repeated.body);
    let other = json!({ "prompt": "a dog" });
    let other = door.drawn(again(&other, "1")).await;
    assert_eq!((other.status, door.jobs()), (StatusCode::OK, 3), "there was nothing to repeat");
}

#[tokio::test(start_paused = true)]
async fn a_repeat_takes_over_the_job_whose_call_was_lost() {
    let door = door();
    let body = json!({ "prompt": "a cat" });
    let lost = door.send(again(&body, "0"));
    assert!(tokio::time::timeout(Duration::from_millis(100), lost).await.is_err());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let told = door.drawn(again(&body, "1")).await;
    assert_eq!((told.status, door.jobs()), (StatusCode::OK, 1), "{:?}", told.body);
}

#[tokio::test(start_paused = true)]
async fn a_stream_tells_the_place_partial_pictures_and_the_end() {
    let door = door();
    let body = json!({ "prompt": "a cat", "stream": true, "partial_images": 1 });
    let live = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let lease = door.with_worker().lease();
        let writer = door.board.begin(lease.0, lease.1);
        for number in 1..=8 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let preview = Preview::new(Bytes::from_static(b"soon"));
            writer.publish(EngineStep { preview, ..super::super::step(number) });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        door.complete(lease).await;
    };
    let (told, ()) = tokio::join!(door.post(DRAW, &body), live);
    assert_eq!(told.header("content-type"), "text/event-stream; charset=utf-8");
    let text = String::from_utf8(told.body.to_vec()).expect("text");
    assert!(text.starts_with(": queued position=1\n\n"), "{text}");
    let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(names, ["image_generation.partial_image", "image_generation.completed"], "{text}");
    assert!(text.contains("\"b64_json\":\"c29vbg==\""));
}

#[tokio::test(start_paused = true)]
async fn a_failure_within_a_stream_is_an_event() {
    let door = door();
    let body = json!({ "prompt": "a cat", "stream": true });
    let cancel = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let state = door.log.view.borrow().state.clone();
        let job = state.jobs().next().expect("accepted").0.to_string();
        door.post(&format!("/api/v1/jobs/{job}/cancel"), &json!({})).await;
    };
    let (told, ()) = tokio::join!(door.post(DRAW, &body), cancel);
    let text = String::from_utf8(told.body.to_vec()).expect("text");
    assert!(text.contains("event: error\ndata: {\"error\":{"), "{text}");
    assert!(text.contains("\"code\":\"cancelled\""), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_job_alone_is_had_at_once_and_models_are_named() {
    let door = door();
    door.with_worker();
    let told = door.post(DRAW, &json!({ "prompt": "a cat", "async": true })).await;
    assert_eq!(told.status, StatusCode::ACCEPTED);
    let url = told.json()["url"].as_str().expect("an address").to_owned();
    assert_eq!(door.get(&url).await.json()["phase"], "queued");
    let models = door.get("/v1/models").await.json();
    assert_eq!(models["data"][1]["id"], "toy@0123456789ab");
    assert_eq!(door.get("/v1/models/z-image-turbo").await.status, StatusCode::OK);
    assert_eq!(door.get("/v1/models/sdxl").await.status, StatusCode::NOT_FOUND);
}
