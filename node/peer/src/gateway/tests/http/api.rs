//! `/api/v1`.

use super::*;

const JOBS: &str = "/api/v1/jobs";

async fn submitted(door: &Door) -> String {
    let told = door.post(JOBS, &json!({ "prompt": "a cat", "seed": 7 })).await;
    assert_eq!(told.status, StatusCode::ACCEPTED);
    told.json()["id"].as_str().expect("an id").to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_job_is_accepted_with_its_place_and_read_back() {
    let door = door();
    let told = door.post(JOBS, &json!({ "prompt": "a cat", "width": 64, "count": 2 })).await;
    assert_eq!(told.status, StatusCode::ACCEPTED);
    let id = told.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(told.header("location"), format!("{JOBS}/{id}"));
    assert_eq!((told.header("x-job-id"), told.header("x-queue-position")), (id.as_str(), "1"));
    assert_eq!(told.header("x-served-by"), "1");
    let read = door.get(&format!("{JOBS}/{id}")).await.json();
    assert_eq!((read["phase"].as_str(), read["count"].as_u64()), (Some("queued"), Some(2)));
    let listed = door.get(&format!("{JOBS}?phase=queued,running&limit=5")).await.json();
    assert_eq!((listed["jobs"][0]["id"].as_str(), listed["total"].as_u64()), (Some(&*id), Some(1)));
    assert_eq!(door.get(&format!("{JOBS}?phase=done")).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn a_key_makes_a_repeat_the_same_job_and_another_body_a_refusal() {
    let door = door();
    let call = |body: &Value| with(post(JOBS, body), "idempotency-key", "\"8e03\"");
    let first = door.send(call(&json!({ "prompt": "a cat" }))).await;
    let again = door.send(call(&json!({ "prompt": "a cat" }))).await;
    assert_eq!(again.status, StatusCode::ACCEPTED, "{:?}", again.body);
    assert_eq!(first.json()["id"], again.json()["id"], "the seed follows from the key");
    let replayed = (first.header("idempotent-replayed"), again.header("idempotent-replayed"));
    assert_eq!(replayed, ("", "true"));
    let other = door.send(call(&json!({ "prompt": "a dog" }))).await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(other.json()["error"]["code"], "idempotency_conflict");
    assert_eq!(door.jobs(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_told_with_what_was_expected() {
    let door = door();
    let check = async |body: &str, expect: &str| {
        let call = Call::post(JOBS).body(Body::from(body.to_owned())).expect("a call");
        let told = door.send(call).await;
        assert_eq!(told.status, StatusCode::BAD_REQUEST, "{body}");
        let message = told.json()["error"]["message"].as_str().expect("text").to_owned();
        assert!(message.contains(expect), "{body}: {message}");
    };
    check("{\"prompt\": \"a", "body: expected JSON").await;
    check("[]", "expected a JSON object, got a list").await;
    check("", "prompt: expected a text, got nothing").await;
    check("{\"prompt\": \"a cat\", \"width\": 1000}", "use 992 or 1008").await;
    check("{\"prompt\": \"a cat\", \"priority\": 11}", "priority").await;
    let long = vec![b' '; 1024 * 1024 + 1];
    let told = door.send(Call::post("/sdapi/v1/txt2img").body(Body::from(long)).expect("a call"));
    let told = told.await;
    assert_eq!(told.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(door.jobs(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_trace_is_passed_on() {
    let door = door();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    door.send(with(post(JOBS, &json!({ "prompt": "a cat" })), "traceparent", trace)).await;
    let state = door.log.view.borrow().state.clone();
    let (_, job) = state.jobs().next().expect("accepted");
    assert_eq!(job.submit.traceparent, trace);
}

#[tokio::test(start_paused = true)]
async fn a_job_is_cancelled_by_either_way_and_again() {
    let door = door();
    let id = submitted(&door).await;
    let delete = || Call::delete(format!("{JOBS}/{id}")).body(Body::empty()).expect("a call");
    assert_eq!(door.send(delete()).await.json()["phase"], "cancelled");
    let again = door.post(&format!("{JOBS}/{id}/cancel"), &json!({})).await;
    assert_eq!((again.status, again.json()["phase"].as_str()), (StatusCode::OK, Some("cancelled")));
    let unknown = door.post(&format!("{JOBS}/{}/cancel", JobId(9)), &json!({})).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_waited_for_has_its_pictures() {
    let door = door();
    let body = json!({ "prompt": "a cat", "count": 2, "seed": 5, "wait": true });
    let told = door.drawn(post(JOBS, &body)).await;
    assert_eq!(told.status, StatusCode::OK, "{:?}", told.body);
    let job = told.json();
    assert_eq!(
        (job["phase"].as_str(), job["images"][1]["seed"].as_u64()),
        (Some("succeeded"), Some(6))
    );
    assert_eq!(told.header("x-model-version"), "toy@0123456789ab");
    assert_eq!(told.header("x-attempt"), "1");
    let picture = door.get(job["images"][1]["url"].as_str().expect("an address")).await;
    assert_eq!((picture.status, picture.header("content-type")), (StatusCode::OK, "image/png"));
    let text = "Seed: 6, Size: 48x16";
    assert!(String::from_utf8_lossy(&picture.body).contains(text));
    let none = door.get(&format!("{JOBS}/{}/images/2", job["id"].as_str().expect("id"))).await;
    assert_eq!(none.status, StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn an_artifact_has_a_tag_a_length_and_parts() {
    let door = door();
    let bytes = Bytes::from((0..100_u8).collect::<Vec<u8>>());
    let digest = door.gateway.artifacts.put(bytes.clone()).await.expect("kept");
    let path = format!("/api/v1/artifacts/{digest}");
    let whole = door.get(&path).await;
    assert_eq!((whole.status, &whole.body), (StatusCode::OK, &bytes));
    assert_eq!(whole.header("etag"), format!("\"{digest}\""));
    let head = Call::head(&path).body(Body::empty()).expect("a call");
    let head = door.send(head).await;
    assert_eq!((head.header("content-length"), head.body.len()), ("100", 0));
    let get = || Call::get(&path).body(Body::empty()).expect("a call");
    let part = door.send(with(get(), "range", "bytes=10-19")).await;
    assert_eq!((part.status, &part.body[..]), (StatusCode::PARTIAL_CONTENT, &bytes[10..20]));
    assert_eq!(part.header("content-range"), "bytes 10-19/100");
    let beyond = door.send(with(get(), "range", "bytes=100-")).await;
    assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
    let known = door.send(with(get(), "if-none-match", whole.header("etag"))).await;
    assert_eq!((known.status, known.body.len()), (StatusCode::NOT_MODIFIED, 0));
    let missing = door.get(&format!("/api/v1/artifacts/{}", Digest([1; 32]))).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn events_tell_a_jobs_life_and_go_on_where_the_client_stood() {
    let door = door();
    let id = submitted(&door).await;
    let path = format!("{JOBS}/{id}/events");
    let live = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        door.with_worker();
        let (job, token) = door.lease();
        let writer = door.board.begin(job, token);
        tokio::time::sleep(Duration::from_millis(100)).await;
        writer.publish(step(3));
        tokio::time::sleep(Duration::from_millis(100)).await;
        door.complete((job, token)).await;
    };
    let (told, ()) = tokio::join!(door.get(&path), live);
    assert_eq!(told.header("content-type"), "text/event-stream; charset=utf-8");
    assert_eq!(told.header("x-accel-buffering"), "no");
    let text = String::from_utf8(told.body.to_vec()).expect("text");
    let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(names, ["queued", "started", "step", "completed"], "{text}");
    let last = text.lines().filter_map(|line| line.strip_prefix("id: ")).next_back();
    let again = Call::get(&path).body(Body::empty()).expect("a call");
    let again = door.send(with(again, "last-event-id", last.expect("an id"))).await;
    let text = String::from_utf8(again.body.to_vec()).expect("text");
    assert!(text.contains("event: completed") && !text.contains("event: queued"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_lags_does_not_go_back_in_time() {
    let door = door();
    let id = submitted(&door).await;
    let call = Call::get(format!("{JOBS}/{id}/events")).body(Body::empty()).expect("a call");
    let told = door.send(with(call, "last-event-id", "999-1")).await;
    assert_eq!(told.status, StatusCode::SERVICE_UNAVAILABLE, "another peer may be ahead");
    assert_eq!(told.header("retry-after"), "1");
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_old_reads_are_taken_only_where_asked_for() {
    let door = door();
    let id = submitted(&door).await;
    door.log.status.send_modify(|status| (status.is_leader, status.leader) = (false, None));
    for path in [format!("{JOBS}/{id}"), JOBS.to_owned(), "/api/v1/queue".to_owned()] {
        assert_eq!(door.get(&path).await.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert_eq!(door.get(&format!("{path}?stale=1")).await.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_is_told_with_when_to_come_back() {
    let mut world = world();
    world.gateway.unfinished_bytes_max = 0;
    let door = door_of(world);
    let told = door.post(JOBS, &json!({ "prompt": "a cat" })).await;
    assert_eq!((told.status, told.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "5"));
    assert_eq!(told.header("ratelimit"), "\"queue\";r=0;t=5");
    assert_eq!(told.json()["error"]["code"], "full");
}

#[tokio::test]
async fn cluster_queue_and_settings_are_told() {
    let door = door();
    door.with_worker();
    let cluster = door.get("/api/v1/cluster").await.json();
    assert_eq!(
        (cluster["leader"].as_u64(), cluster["members"][0]["model"].as_str()),
        (Some(1), Some("toy@0123456789ab"))
    );
    assert_eq!(door.get("/api/v1/queue").await.json()["queued"], 0);
    let config = door.get("/api/v1/config").await.json();
    let keys = config["settings"].as_array().expect("a list").iter();
    assert!(keys.map(|one| &one["key"]).any(|key| key == "queue.jobs_max"), "{config}");
}
