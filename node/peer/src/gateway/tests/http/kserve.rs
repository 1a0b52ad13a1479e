//! `/v2`.

use super::*;

const INFER: &str = "/v2/models/z-image-turbo/infer";

fn inputs() -> Value {
    json!({ "id": "7", "inputs": [
        { "name": "prompt", "datatype": "BYTES", "shape": [1], "data": ["a cat"] },
        { "name": "seed", "datatype": "INT64", "shape": [1], "data": [41] },
        { "name": "images", "datatype": "INT32", "shape": [1], "data": [2] },
    ] })
}

#[tokio::test(start_paused = true)]
async fn the_model_is_described_and_drawn_with() {
    let door = door();
    door.with_worker();
    assert_eq!(door.get("/v2/health/live").await.json(), json!({ "live": true }));
    assert_eq!(door.get("/v2/health/ready").await.status, StatusCode::OK);
    let model = door.get("/v2/models/z-image-turbo").await.json();
    assert_eq!(
        (&model["versions"][0], &model["inputs"][0]["name"]),
        (&json!("0123456789ab"), &json!("prompt"))
    );
    assert_eq!(door.get("/v2/models/other/ready").await.status, StatusCode::NOT_FOUND);
    let told = door.drawn(post(INFER, &inputs())).await;
    assert_eq!(told.status, StatusCode::OK, "{:?}", told.body);
    let answer = told.json();
    assert_eq!((&answer["id"], &answer["outputs"][0]["shape"]), (&json!("7"), &json!([2])));
    assert_eq!(answer["outputs"][1]["data"], json!([41, 42]));
}

#[tokio::test(start_paused = true)]
async fn a_binary_answer_has_its_pictures_behind_the_json() {
    let door = door();
    let mut body = inputs();
    body["parameters"] = json!({ "binary_data_output": true });
    let told = door.drawn(post(INFER, &body)).await;
    let length: usize = told.header("inference-header-content-length").parse().expect("a length");
    let (head, tensor) = told.body.split_at(length);
    let head: Value = serde_json::from_slice(head).expect("JSON");
    let size = head["outputs"][0]["parameters"]["binary_data_size"].as_u64();
    assert_eq!(size, Some(tensor.len() as u64));
    assert_eq!(&tensor[4..8], b"\x89PNG");
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_is_told_in_the_protocols_shape() {
    let door = door();
    let told = door.post(INFER, &json!({ "inputs": [] })).await;
    assert_eq!(told.status, StatusCode::BAD_REQUEST);
    assert!(told.json()["error"].as_str().expect("text").contains("\"prompt\""));
    door.log.status.send_modify(|status| (status.is_leader, status.leader) = (false, None));
    assert_eq!(door.get("/v2/health/ready").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(door.get("/v2/health/live").await.status, StatusCode::OK);
}
