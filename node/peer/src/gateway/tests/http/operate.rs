//! `/api/v1`, the operator's part.

use super::*;

const CONFIG: &str = "/api/v1/config";

/// A door of a cluster whose members all know settings.
fn newest_door() -> Door {
    let door = door();
    door.log.apply(&[Command::RaiseFeatures(RaiseFeatures { level: 3 })]);
    door
}

fn patch(body: &Value) -> Call<Body> {
    let mut call = post(CONFIG, body);
    *call.method_mut() = Method::PATCH;
    call
}

#[tokio::test(start_paused = true)]
async fn settings_are_changed_by_compare_and_set_and_the_history_tells_who_and_why() {
    let door = newest_door();
    let set = json!({ "queue.jobs_max": 5000, "queue.paused": true });
    let body = json!({ "set": set, "expect_version": 0, "why": "new disks", "who": "ada" });
    let told = door.send(patch(&body)).await;
    assert_eq!((told.status, &told.json()["version"]), (StatusCode::OK, &json!(1)));
    let late =
        door.send(patch(&json!({ "set": { "queue.paused": null }, "expect_version": 0 }))).await;
    assert_eq!(late.status, StatusCode::CONFLICT);
    let back = json!({ "set": { "queue.jobs_max": null }, "why": "enough" });
    assert_eq!(door.send(patch(&back)).await.status, StatusCode::OK);

    let history = door.get("/api/v1/config/history").await.json();
    let newest = &history["versions"][0];
    assert_eq!((&newest["version"], &newest["why"]), (&json!(2), &json!("enough")));
    let change = json!({ "key": "queue.jobs_max", "before": 5000, "after": null });
    assert_eq!(newest["changes"], json!([change]));
    let oldest = &history["versions"][1];
    assert_eq!((&oldest["who"], &oldest["changes"][1]["before"]), (&json!("ada"), &Value::Null));
    assert_eq!(oldest["changes"][1]["after"], json!(true));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_cannot_be_read_changes_nothing() {
    let door = newest_door();
    let check = async |body: Value, expect: &str| {
        let told = door.send(patch(&body)).await;
        assert_eq!(told.status, StatusCode::BAD_REQUEST, "{body}");
        let message = told.json()["error"]["message"].as_str().expect("text").to_owned();
        assert!(message.contains(expect), "{body}: {message}");
    };
    check(json!({}), "set: expected an object").await;
    check(json!({ "set": { "queue.paused": "yes" } }), "queue.paused: expected a whole").await;
    check(json!({ "set": { "queue.jobs_max": -1 } }), "queue.jobs_max: expected a whole").await;
    check(json!({ "set": { "no.such": 1 } }), "no.such").await;
    assert_eq!(door.get(CONFIG).await.json()["version"], json!(0));
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_paused_and_a_member_drained_with_a_reason_in_the_trail() {
    let door = newest_door();
    door.with_worker();
    let paused = door.post("/api/v1/queue/pause", &json!({ "why": "new disks" })).await;
    assert_eq!(paused.json()["paused"], json!(true));
    let again = door.post("/api/v1/queue/resume", &json!({})).await;
    assert_eq!(again.json()["paused"], json!(false));
    let drained = door.post("/api/v1/members/1/drain", &json!({ "why": "hot" })).await;
    assert_eq!((drained.status, &drained.json()["draining"]), (StatusCode::OK, &json!(true)));
    let resumed = door.post("/api/v1/members/1/resume", &json!({})).await;
    assert_eq!(resumed.json()["draining"], json!(false));
    assert_eq!(door.post("/api/v1/members/one/drain", &json!({})).await.status, 400);
    assert_eq!(door.post("/api/v1/members/9/drain", &json!({})).await.status, 404);

    let records = door.get("/api/v1/trail").await.json()["records"].clone();
    let whys: Vec<_> = records.as_array().expect("a list").iter().map(|one| &one["why"]).collect();
    assert!(whys.contains(&&json!("hot")), "{records}");
    let one = door.get("/api/v1/trail?limit=1").await.json();
    assert_eq!(one["records"].as_array().map(Vec::len), Some(1));
    assert_eq!(door.get("/api/v1/trail?limit=x").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn an_act_that_another_site_could_send_is_refused() {
    let door = door();
    let call = Call::post("/api/v1/queue/pause").header("content-type", "text/plain");
    let told = door.send(call.body(Body::from("{}")).expect("a call")).await;
    assert_eq!(told.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(door.get("/api/v1/queue").await.json()["paused"], json!(false));
}

#[tokio::test(start_paused = true)]
async fn a_peer_tells_what_it_finds() {
    let found = door().get("/api/v1/findings").await.json();
    let findings = found["findings"].as_array().expect("a list");
    assert!(!findings.is_empty());
    let levels = ["ok", "warn", "fail"];
    assert!(findings.iter().all(|one| levels.contains(&one["level"].as_str().expect("a word"))));
}

#[tokio::test(start_paused = true)]
async fn the_lead_is_handed_over_by_whoever_asks_from_an_address() {
    let door = newest_door();
    let mut call = post("/api/v1/cluster/transfer-leader", &json!({ "to": 2 }));
    let caller = std::net::SocketAddr::from(([10, 0, 0, 7], 999));
    call.extensions_mut().insert(axum::extract::ConnectInfo(caller));
    let told = door.send(call).await;
    assert_eq!((told.status, told.json()), (StatusCode::OK, json!({ "leader": 2 })));
    let newest = door.get("/api/v1/trail?limit=1").await.json()["records"][0].clone();
    assert_eq!(newest["who"], "10.0.0.7:999", "{newest}");
}
