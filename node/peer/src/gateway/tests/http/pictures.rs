//! Pictures to begin from, through every dialect.

use super::*;
use crate::gateway::pictures;
use crate::parameters::{Source, TextToImage};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const JOBS: &str = "/api/v1/jobs";
const PUT: &str = "/api/v1/artifacts";
const REDRAW: &str = "/sdapi/v1/img2img";
const EDIT: &str = "/v1/images/edits";

fn grey(width: u32, height: u32) -> Bytes {
    crate::gateway::http::png_of_tests(width, height)
}

fn put(bytes: &Bytes) -> Call<Body> {
    Call::post(PUT).body(Body::from(bytes.clone())).expect("a call")
}

impl Door {
    /// What the newest job begins from, with its own size.
    fn source(&self) -> (TextToImage, Source) {
        let state = self.log.view.borrow().state.clone();
        let (_, job) = state.jobs().max_by_key(|(_, job)| job.sequence).expect("a job");
        let asked = TextToImage::decode(&job.submit.kind, &job.submit.parameters);
        let asked = asked.expect("parameters");
        (asked.clone(), asked.source.expect("a picture to begin from"))
    }

    async fn size_of(&self, digest: Digest) -> (u32, u32) {
        let bytes = self.gateway.artifacts.fetch(digest).await.expect("it is kept");
        pictures::read(&bytes).expect("a picture").dimensions()
    }
}

#[tokio::test]
async fn a_picture_is_kept_and_a_job_begins_from_it_at_the_size_that_is_drawn() {
    let door = door().risen();
    let told = door.send(put(&grey(100, 50))).await;
    assert_eq!(told.status, StatusCode::CREATED, "{:?}", told.body);
    let kept = told.json();
    assert_eq!((&kept["width"], &kept["media_type"]), (&json!(100), &json!("image/png")));
    let path = told.header("location").to_owned();
    assert_eq!(door.get(&path).await.header("content-type"), "image/png");

    let body = json!({ "prompt": "a cat", "image": kept["digest"], "width": 64, "height": 128 });
    let told = door.post(JOBS, &body).await;
    assert_eq!(told.status, StatusCode::ACCEPTED, "{:?}", told.body);
    assert_eq!(told.json()["strength"], json!(0.6));
    let (asked, source) = door.source();
    assert_eq!((asked.width, asked.height), (64, 128));
    assert_eq!(door.size_of(source.image).await, (64, 128));

    let inline = format!("data:image/png;base64,{}", STANDARD.encode(grey(100, 50)));
    let mask = STANDARD.encode(grey(20, 20));
    let body = json!({ "prompt": "a cat", "image": inline, "mask": mask, "strength": 0.25 });
    assert_eq!(door.post(JOBS, &body).await.status, StatusCode::ACCEPTED);
    let (asked, source) = door.source();
    assert_eq!((asked.width, asked.height), (96, 64), "near its own size");
    assert_eq!((door.size_of(source.image).await, source.strength), ((96, 64), 0.25));
    assert_eq!(door.size_of(source.mask.expect("a mask")).await, (96, 64));
}

#[tokio::test]
async fn what_cannot_be_begun_from_is_refused_with_what_came() {
    let door = door().risen();
    let refused = async |body: Value, part: &str| {
        let told = door.post(JOBS, &body).await;
        let text = String::from_utf8_lossy(&told.body).into_owned();
        assert_eq!(told.status, StatusCode::BAD_REQUEST, "{text}");
        assert!(text.contains(part), "{text}");
    };
    let own = STANDARD.encode(grey(64, 64));
    let cat = |more: Value| {
        let mut body = json!({ "prompt": "a cat" });
        body.as_object_mut().expect("fields").extend(more.as_object().expect("fields").clone());
        body
    };
    refused(cat(json!({ "image": "not base64!" })), "image: expected a picture in base64").await;
    refused(cat(json!({ "image": STANDARD.encode("cat") })), "expected a PNG, JPEG or WebP").await;
    refused(cat(json!({ "mask": own })), "image: expected a picture beside mask").await;
    refused(cat(json!({ "strength": 0.5 })), "image: expected a picture beside mask").await;
    refused(cat(json!({ "image": own, "strength": 0 })), "strength 0: expected 0.001 to 1").await;
    refused(cat(json!({ "image": own, "strength": 2 })), "strength 2: expected 0.001 to 1").await;
    refused(cat(json!({ "negative_prompt": "a dog" })), "expected guidance beside it").await;
    refused(cat(json!({ "guidance": 31 })), "guidance 31: expected more than 0").await;
    let told = door.post(JOBS, &cat(json!({ "image": Digest([9; 32]).to_string() }))).await;
    assert_eq!(told.status, StatusCode::NOT_FOUND);
    let told = door.send(put(&Bytes::from_static(b"a cat"))).await;
    assert_eq!(told.status, StatusCode::BAD_REQUEST);
    assert_eq!(door.jobs(), 0);
}

#[tokio::test]
async fn a_cluster_with_an_old_peer_says_what_it_lacks() {
    let door = door();
    let body = json!({ "prompt": "a cat", "image": STANDARD.encode(grey(64, 64)) });
    let told = door.post(JOBS, &body).await;
    assert_eq!(told.status, StatusCode::CONFLICT);
    assert!(String::from_utf8_lossy(&told.body).contains("feature level 4, this one has 1"));
    let takes = |told: &Told| told.json()["takes"]["image"].clone();
    assert_eq!(takes(&door.get("/api/v1/cluster").await), json!(false));
    assert_eq!(takes(&door.risen().get("/api/v1/cluster").await), json!(true));
}

#[tokio::test(start_paused = true)]
async fn webui_draws_a_picture_anew() {
    let door = door().risen();
    let picture = STANDARD.encode(grey(64, 64));
    let body = json!({
        "init_images": [picture, picture], "mask": picture, "inpainting_mask_invert": 1, "prompt": "a cat",
        "denoising_strength": 0.3, "resize_mode": 1, "seed": 5, "steps": 4, "include_init_images": false,
    });
    let told = door.drawn(post(REDRAW, &body)).await;
    assert_eq!(told.status, StatusCode::OK, "{:?}", told.body);
    let answer = told.json();
    assert_eq!(answer["parameters"]["init_images"], Value::Null);
    let info: Value = serde_json::from_str(answer["info"].as_str().expect("text")).expect("JSON");
    assert_eq!(info["denoising_strength"], json!(0.3));
    let notes = info["extra_generation_params"].as_object().expect("notes");
    assert!(notes.contains_key("resize_mode") && notes.contains_key("init_images"), "{notes:?}");
    let text = info["infotexts"][0].as_str().expect("text");
    assert!(text.contains("Model: z-image-turbo, Denoising strength: 0.3"), "{text}");
    let (asked, source) = door.source();
    assert_eq!((asked.width, source.strength, asked.seed), (64, 0.3, 5));
    let mask = door.gateway.artifacts.fetch(source.mask.expect("a mask")).await.expect("kept");
    let inverted = pictures::read(&mask).expect("a picture");
    assert_eq!(inverted.get_pixel(3, 3).0, [248; 3], "7 of 255, inverted");
    let told = door.post(REDRAW, &json!({ "prompt": "a cat", "init_images": [] })).await;
    assert_eq!(told.status, StatusCode::NOT_FOUND);
    assert_eq!(told.json()["detail"], "Init image not found");
}

fn edit(parts: &[(&str, &[u8])], boundary: &str) -> Call<Body> {
    let mut body = Vec::new();
    for (name, value) in parts {
        let head =
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(value);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    let call = Call::post(EDIT)
        .header("content-type", format!("multipart/form-data; boundary={boundary}"));
    call.body(Body::from(body)).expect("a call")
}

#[tokio::test(start_paused = true)]
async fn openai_edits_a_picture_and_a_repeat_is_the_same_job() {
    let door = door().risen();
    let picture = grey(64, 64);
    let parts: [(&str, &[u8]); 4] =
        [("image", &picture), ("prompt", b"a cat"), ("n", b"1"), ("seed", b"5")];
    let told = door.drawn(edit(&parts, "first")).await;
    assert_eq!(told.status, StatusCode::OK, "{:?}", told.body);
    assert!(told.json()["data"][0]["b64_json"].is_string());
    let (asked, source) = door.source();
    assert_eq!((asked.seed, asked.width, source.mask), (5, 64, None));
    // The library cuts the parts of a repeat by other words.
    let again = with(edit(&parts, "second"), "x-stainless-retry-count", "1");
    assert_eq!(door.drawn(again).await.status, StatusCode::OK);
    assert_eq!(door.jobs(), 1);

    let check = async |parts: &[(&str, &[u8])], param: &str| {
        let told = door.send(edit(parts, "b")).await;
        assert_eq!(
            (told.status, &told.json()["error"]["param"]),
            (StatusCode::BAD_REQUEST, &json!(param))
        );
    };
    check(&[("prompt", b"a cat")], "image").await;
    check(&[("image", &picture), ("image", &picture), ("prompt", b"a cat")], "image").await;
    check(&[("image", b"a cat"), ("prompt", b"a cat")], "image").await;
    check(&[("image", &picture), ("mask", b"a cat"), ("prompt", b"a cat")], "mask").await;
    let wrong = door.post(EDIT, &json!({ "prompt": "a cat" })).await;
    assert_eq!(wrong.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(door.jobs(), 1);
}

#[tokio::test(start_paused = true)]
async fn only_so_many_pictures_are_taken_at_once() {
    let door = door().risen();
    let mut turns = Vec::new();
    for _ in 0..4 {
        turns.push(door.gateway.turn().await.expect("there is room"));
    }
    let large = Bytes::from(vec![7; 2 << 20]);
    let told = door.send(put(&large)).await;
    assert_eq!((told.status, told.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"));
    assert_eq!(door.post(JOBS, &json!({ "prompt": "a cat" })).await.status, StatusCode::ACCEPTED);
    turns.pop();
    assert_eq!(door.send(put(&large)).await.status, StatusCode::BAD_REQUEST, "no picture");
}
