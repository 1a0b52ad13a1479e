//! `/sdapi/v1`.

use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const DRAW: &str = "/sdapi/v1/txt2img";

#[tokio::test(start_paused = true)]
async fn a_call_as_webuiapi_sends_it_is_drawn() {
    let door = door();
    let body = json!({
        "prompt": "a cat", "seed": 41, "steps": 20, "cfg_scale": 7.0, "width": 64.0, "height": null,
        "batch_size": 1, "n_iter": 2, "sampler_name": "Euler a", "alwayson_scripts": {},
        "negative_prompt": "", "styles": [],
    });
    let told = door.drawn(post(DRAW, &body)).await;
    assert_eq!(told.status, StatusCode::OK, "{:?}", told.body);
    let answer = told.json();
    assert_eq!(answer["parameters"], body);
    let info: Value = serde_json::from_str(answer["info"].as_str().expect("text")).expect("JSON");
    assert_eq!((&info["all_seeds"], &info["steps"]), (&json!([41, 42]), &json!(20)));
    assert_eq!(info["sd_model_hash"], "0123456789");
    let notes = &info["extra_generation_params"];
    assert!(notes["cfg_scale"].is_string() && notes["sampler"].is_string(), "{notes}");
    let images = answer["images"].as_array().expect("a list");
    assert_eq!(images.len(), 2);
    let png = STANDARD.decode(images[1].as_str().expect("base64")).expect("base64");
    let text = "Steps: 20, Sampler: Euler, CFG scale: 0, Seed: 42, Size: 48x16";
    assert!(String::from_utf8_lossy(&png).contains(text));
    assert_eq!(info["infotexts"][1], format!("a cat\n{text}, Model: z-image-turbo"));
    let read = door.post("/sdapi/v1/png-info", &json!({ "image": images[1] })).await.json();
    assert_eq!((&read["info"], &read["parameters"]["Seed"]), (&info["infotexts"][1], &json!("42")));
}

#[tokio::test(start_paused = true)]
async fn faults_have_the_shape_of_fastapi() {
    let door = door();
    let told = door.post(DRAW, &json!({ "prompt": 7, "width": 1000 })).await;
    assert_eq!(told.status, StatusCode::UNPROCESSABLE_ENTITY);
    let detail = told.json()["detail"][0].clone();
    assert_eq!(
        (&detail["loc"], &detail["type"]),
        (&json!(["body", "prompt"]), &json!("string_type"))
    );
    let told = door.post(DRAW, &json!({ "prompt": "a cat", "width": 1000 })).await;
    assert_eq!(told.status, StatusCode::UNPROCESSABLE_ENTITY);
    let told = door.post("/sdapi/v1/extra-single-image", &json!({ "image": "…" })).await;
    assert_eq!(told.status, StatusCode::NOT_IMPLEMENTED);
    assert_eq!(told.json()["error"], "NotImplementedError");
}

/// The answer to a call, and whatever else happens meanwhile.
fn from(call: Call<Body>, address: &str) -> Call<Body> {
    with(call, "x-forwarded-for", address)
}

#[tokio::test(start_paused = true)]
async fn progress_and_interrupt_concern_the_callers_own_jobs() {
    let door = door();
    let body = json!({ "prompt": "a cat", "force_task_id": "task(abc)" });
    let dog = json!({ "prompt": "a dog" });
    let mine = door.send(from(post(DRAW, &body), "10.0.0.1"));
    let theirs = door.send(from(post(DRAW, &dog), "10.0.0.2"));
    let poll = |path: &str, address| {
        let call = Call::get(path).body(Body::empty()).expect("a call");
        door.send(from(call, address))
    };
    let meanwhile = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let lease = door.with_worker().lease();
        let writer = door.board.begin(lease.0, lease.1);
        writer.publish(step(4));
        let told = poll("/sdapi/v1/progress", "10.0.0.1").await.json();
        assert_eq!((&told["progress"], &told["state"]["job_count"]), (&json!(0.5), &json!(1)));
        assert_eq!(told["state"]["sampling_step"], 4);
        let other = poll("/sdapi/v1/progress", "10.0.0.2").await.json();
        assert_eq!(
            (&other["progress"], &other["textinfo"]),
            (&json!(0.0), &json!("queued, position 1"))
        );
        let idle = poll("/sdapi/v1/progress", "10.0.0.3").await.json();
        assert_eq!((&idle["progress"], &idle["state"]["job_count"]), (&json!(0.0), &json!(0)));
        let task = post("/internal/progress", &json!({ "id_task": "task(abc)" }));
        let task = door.send(from(task, "10.0.0.1")).await.json();
        assert_eq!((&task["active"], &task["progress"]), (&json!(true), &json!(0.5)));
        let stranger = post("/sdapi/v1/interrupt", &json!({}));
        let told = door.send(from(stranger, "10.0.0.3")).await;
        assert_eq!((told.status, told.json()), (StatusCode::OK, json!({})));
        let skipped = door.send(from(post("/sdapi/v1/skip", &json!({})), "10.0.0.2")).await;
        assert_eq!(skipped.json(), Value::Null);
        door.complete(lease).await;
    };
    let (mine, theirs, ()) = tokio::join!(mine, theirs, meanwhile);
    assert_eq!(mine.status, StatusCode::OK, "{:?}", mine.body);
    assert_eq!(theirs.status, StatusCode::CONFLICT, "its own caller skipped it");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_takes_its_job_along_and_one_that_comes_back_finds_it() {
    let door = door();
    let call = || post(DRAW, &json!({ "prompt": "a cat", "force_task_id": "t" }));
    let left = tokio::time::timeout(Duration::from_millis(100), door.send(call())).await;
    assert!(left.is_err(), "nobody draws");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let back = door.drawn(call()).await;
    assert_eq!((back.status, door.jobs()), (StatusCode::OK, 1));

    let call = || post(DRAW, &json!({ "prompt": "a dog", "force_task_id": "u" }));
    // What the worker held is drawn; nobody takes the next one.
    let left = tokio::time::timeout(Duration::from_millis(100), door.send(call())).await;
    assert!(left.is_err(), "nobody draws");
    tokio::time::sleep(Duration::from_secs(4)).await;
    let state = door.log.view.borrow().state.clone();
    assert_eq!((state.cancelled_count(), state.queued_count()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_during_an_election_leaves_no_job_behind() {
    let door = door();
    let lead = |leads: bool| {
        let none = ProposeError::NotLeader { leader: None };
        *door.log.failure.lock().expect("no panic") = (!leads).then_some(none);
        let leader = leads.then_some(NodeId(1));
        door.log.status.send_modify(|status| (status.is_leader, status.leader) = (leads, leader));
    };
    lead(false);
    let call = post(DRAW, &json!({ "prompt": "a cat" }));
    let left = tokio::time::timeout(Duration::from_secs(2), door.send(call)).await;
    assert!(left.is_err(), "the call is held");
    tokio::time::sleep(Duration::from_secs(8)).await;
    lead(true);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let state = door.log.view.borrow().state.clone();
    assert_eq!((state.queued_count(), state.leased_count()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_a_proxy_sends_twice_is_one_job() {
    let door = door();
    for (id, jobs) in [("r1", 1), ("r1", 1), ("r2", 2)] {
        let call = with(post(DRAW, &json!({ "prompt": "a cat" })), "x-request-id", id);
        let told = door.drawn(call).await;
        assert_eq!((told.status, door.jobs()), (StatusCode::OK, jobs), "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_leaves_sends_its_callers_elsewhere_and_cancels_nothing() {
    let door = door();
    let leave = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        door.draining.send_replace(true);
    };
    let cat = json!({ "prompt": "a cat" });
    let (told, ()) = tokio::join!(door.post(DRAW, &cat), leave);
    assert_eq!((told.status, told.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(door.log.view.borrow().state.queued_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_tools_ask_first_is_answered() {
    let door = door();
    door.with_worker();
    let models = door.get("/sdapi/v1/sd-models").await.json();
    let title = models[0]["title"].clone();
    assert_eq!(title, "z-image-turbo [0123456789]");
    let options = door.get("/sdapi/v1/options").await.json();
    assert_eq!(
        (&options["sd_model_checkpoint"], &options["samples_format"]),
        (&title, &json!("png"))
    );
    let same = door.post("/sdapi/v1/options", &options).await;
    assert_eq!((same.status, same.json()), (StatusCode::OK, Value::Null));
    let other = door.post("/sdapi/v1/options", &json!({ "sd_model_checkpoint": "sdxl" })).await;
    assert!(other.status.is_client_error());
    let names = door.get("/sdapi/v1/samplers").await.json();
    assert_eq!((&names[0]["name"], &names[1]["name"]), (&json!("Euler"), &json!("Euler a")));
    for path in ["loras", "sd-vae", "hypernetworks", "prompt-styles", "script-info"] {
        assert_eq!(door.get(&format!("/sdapi/v1/{path}")).await.json(), json!([]), "{path}");
    }
    let scripts = door.get("/sdapi/v1/scripts").await.json();
    assert_eq!(scripts, json!({ "txt2img": [], "img2img": [] }));
}
