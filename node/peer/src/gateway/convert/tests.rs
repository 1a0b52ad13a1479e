//! What a client may send, and the exact text of what it may not.

use super::*;
use proptest::prelude::*;
use tonic::metadata::MetadataValue;

fn cat() -> wire::TextToImage {
    let prompt = "a cat on a blue background".to_owned();
    let size = wire::TextToImage { width: 128, height: 128, ..Default::default() };
    wire::TextToImage { prompt, steps: 8, seed: 7, images: 1, ..size }
}

fn request(parameters: wire::TextToImage) -> wire::SubmitRequest {
    let parameters = Some(wire::submit_request::Parameters::TextToImage(parameters));
    wire::SubmitRequest { parameters, ..Default::default() }
}

fn stamp() -> Stamp {
    Stamp {
        job: JobId(5),
        now_ms: 9,
        attempts_max: 3,
        deadline_s: 0,
        max_runtime_s: 0,
        has_costs: false,
    }
}

fn submitted(request: wire::SubmitRequest) -> Result<Submit, Invalid> {
    submit(request, &MetadataMap::new(), stamp())
}

#[track_caller]
fn check(request: wire::SubmitRequest, expect: &[&str]) {
    let invalid = submitted(request).expect_err("must be refused");
    assert_eq!(invalid.0, expect);
}

#[test]
fn every_bound_is_told_with_expected_got_and_what_to_do() {
    check(
        request(wire::TextToImage { height: 1000, ..cat() }),
        &["height 1000 is not a multiple of 16; use 992 or 1008"],
    );
    check(
        request(wire::TextToImage { width: 4096, ..cat() }),
        &[
            "width 4096: expected a multiple of 16 from 64 to 2048, or 0 for the model's default; use \
         2048",
        ],
    );
    check(
        request(wire::TextToImage { width: 8, ..cat() }),
        &[
            "width 8: expected a multiple of 16 from 64 to 2048, or 0 for the model's default; use 64",
        ],
    );
    check(
        request(wire::TextToImage { steps: 51, ..cat() }),
        &["steps 51: expected 1 to 50, or 0 for the model's default"],
    );
    check(
        request(wire::TextToImage { images: 17, ..cat() }),
        &["images 17: expected 1 to 16; submit several jobs for more"],
    );
    check(
        request(wire::TextToImage { seed: u64::MAX, images: 2, ..cat() }),
        &["seed 18446744073709551615 with 2 images goes beyond 64 bits; use a smaller seed"],
    );
    check(
        request(wire::TextToImage { prompt: "x".repeat(100_000), ..cat() }),
        &["prompt has 100000 bytes, expected at most 8192; shorten it, the model reads 512 tokens"],
    );
    check(
        wire::SubmitRequest::default(),
        &["parameters: expected text_to_image, got nothing; name a prompt"],
    );
    check(
        wire::SubmitRequest { priority: 11, ..request(cat()) },
        &["priority 11: expected 0 for the default, or 1 + the priority, so 1 to 10"],
    );
    check(
        wire::SubmitRequest { tenant: "t".repeat(129), ..request(cat()) },
        &["tenant has 129 bytes, expected at most 128"],
    );
    check(
        wire::SubmitRequest { idempotency_key: "a\nb".to_owned(), ..request(cat()) },
        &["idempotency_key holds a control character; expected plain text"],
    );
    check(
        wire::SubmitRequest { job_id: "one".to_owned(), ..request(cat()) },
        &[
            "job id has 3 bytes, not the 26 characters of a ulid; expected 26 characters of Crockford \
         base32, or nothing for a new one",
        ],
    );
    check(
        wire::SubmitRequest { job_id: "0".repeat(26), ..request(cat()) },
        &[
            "job_id is zero, which is no job; expected 26 characters of Crockford base32, or nothing \
         for a new one",
        ],
    );
}

#[test]
fn all_faults_are_told_at_once() {
    let bad = wire::TextToImage { width: 100, steps: 99, ..cat() };
    let invalid = submitted(wire::SubmitRequest { priority: 12, ..request(bad) });
    assert_eq!(invalid.expect_err("must be refused").0.len(), 3);
}

#[test]
fn what_is_left_out_gets_a_default() {
    let open = wire::TextToImage { prompt: "x".to_owned(), ..Default::default() };
    let submit = submitted(request(open)).expect("valid");
    assert_eq!(submit.job, JobId(5));
    assert_eq!(&*submit.tenant, TENANT_DEFAULT);
    assert_eq!(submit.priority, PRIORITY_DEFAULT);
    assert_eq!(submit.idempotency_key, None);
    assert_eq!((submit.submitted_ms, submit.attempts_max), (9, 3));
    let asked = TextToImage::decode(&submit.kind, &submit.parameters).expect("ours");
    assert_eq!((asked.width, asked.steps, asked.images), (0, 0, 1));
}

#[test]
fn priorities_travel_as_one_more_than_they_are() {
    for (sent, meant) in [(1, 0), (10, 9)] {
        let submit = submitted(wire::SubmitRequest { priority: sent, ..request(cat()) });
        assert_eq!(submit.expect("valid").priority, meant);
    }
}

#[test]
fn the_key_may_come_as_metadata_bare_or_quoted_and_the_field_wins() {
    let submitted = |request, value: &'static str| {
        let mut metadata = MetadataMap::new();
        metadata.insert("idempotency-key", MetadataValue::from_static(value));
        submit(request, &metadata, stamp()).expect("valid").idempotency_key
    };
    assert_eq!(submitted(request(cat()), "k1").as_deref(), Some("k1"));
    assert_eq!(submitted(request(cat()), "\"k1\"").as_deref(), Some("k1"));
    let with_field = wire::SubmitRequest { idempotency_key: "k2".to_owned(), ..request(cat()) };
    assert_eq!(submitted(with_field, "k1").as_deref(), Some("k2"));
}

#[test]
fn jobs_are_listed_newest_first_within_the_limit() {
    let mut state = State::new();
    for id in 1..=5 {
        let mut submit = submitted(request(cat())).expect("valid");
        submit.job = JobId(id);
        state.apply(atelier_state::LogIndex(id as u64), &atelier_state::Command::Submit(submit));
    }
    let request = wire::ListJobsRequest {
        phases: vec![wire::Phase::Queued.into()],
        limit: 2,
        after: String::new(),
    };
    let listed = list_jobs(&state, &request).expect("valid");
    let ids: Vec<String> = listed.jobs.iter().map(|job| job.job_id.clone()).collect();
    assert_eq!(ids, [JobId(5).to_string(), JobId(4).to_string()]);
    assert_eq!(listed.total, 5);
    assert_eq!(listed.jobs[0].position, 5);
    let none = wire::ListJobsRequest {
        phases: vec![wire::Phase::Failed.into()],
        limit: 0,
        after: String::new(),
    };
    assert_eq!(list_jobs(&state, &none).expect("valid").total, 0);
    let wrong = wire::ListJobsRequest { phases: vec![9], limit: 1001, after: "x".to_owned() };
    assert_eq!(
        list_jobs(&state, &wrong).expect_err("refused").0,
        [
            "limit 1001: expected 1 to 1000, or 0 for 100",
            "phase 9: expected queued, leased, succeeded, failed or cancelled (1 to 5)",
            "after \"x\": expected `next` of a reply to the same phases, or nothing for the newest",
        ]
    );
}

/// Walks a list to its end, page by page; tells the jobs and the pages.
fn walked(state: &State, phases: &[wire::Phase], limit: u32) -> (Vec<String>, usize) {
    let (mut told, mut pages, mut after) = (Vec::new(), 0, String::new());
    loop {
        let phases = phases.iter().map(|phase| i32::from(*phase)).collect();
        let request = wire::ListJobsRequest { phases, limit, after };
        let page = list_jobs(state, &request).expect("valid");
        assert!(page.jobs.len() <= limit as usize);
        told.extend(page.jobs.into_iter().map(|job| job.job_id));
        pages += 1;
        after = page.next;
        if after.is_empty() {
            return (told, pages);
        }
    }
}

#[test]
fn a_list_goes_on_page_by_page_until_every_job_is_told_once() {
    let mut state = State::new();
    let mut index = 0;
    for id in 1..=2_500 {
        let mut submit = submitted(request(cat())).expect("valid");
        submit.job = JobId(id);
        index += 1;
        state.apply(atelier_state::LogIndex(index), &atelier_state::Command::Submit(submit));
    }
    let ids = |ids: &mut dyn Iterator<Item = u128>| -> Vec<String> {
        ids.map(|id| JobId(id).to_string()).collect()
    };
    assert_eq!(walked(&state, &[], 1_000), (ids(&mut (1..=2_500).rev()), 3));
    assert_eq!(walked(&state, &[wire::Phase::Queued], 500).1, 5, "a full last page is the last");
    // Cancelled in another order than they came, so the two lists differ.
    for id in (1..=1_500).rev() {
        index += 1;
        let cancel = atelier_state::Cancel {
            job: JobId(id),
            reason: "not wanted".to_owned(),
            finished_ms: 1,
        };
        state.apply(atelier_state::LogIndex(index), &atelier_state::Command::Cancel(cancel));
    }
    let ended = [wire::Phase::Cancelled, wire::Phase::Failed];
    assert_eq!(walked(&state, &ended, 1_000), (ids(&mut (1..=1_500)), 2));
    assert_eq!(walked(&state, &[wire::Phase::Queued], 999).0, ids(&mut (1_501..=2_500).rev()));
    // A place of one order is none of the other.
    for (phases, after) in
        [(vec![], "7-00000000000000000000000001"), (vec![4], "7"), (vec![4], "7-")]
    {
        let request = wire::ListJobsRequest { phases, limit: 1, after: after.to_owned() };
        assert!(list_jobs(&state, &request).is_err(), "{after}");
    }
}

#[test]
fn members_are_told_with_role_and_opinion() {
    let status = RaftStatus {
        leader: Some(NodeId(1)),
        voters: [NodeId(1)].into(),
        learners: [NodeId(7)].into(),
        addresses: [(NodeId(1), "http://a:1".to_owned()), (NodeId(7), "http://g:1".to_owned())]
            .into(),
        ..RaftStatus::default()
    };
    let opinions = BTreeMap::from([(NodeId(1), Opinion { alive: true, matched: 12, features: 2 })]);
    let told = members(&status, &State::new(), &opinions);
    assert_eq!(told.len(), 2);
    assert_eq!(
        (told[0].role(), told[0].leader, told[0].alive),
        (wire::MemberRole::Voter, true, true)
    );
    assert_eq!((told[1].role(), told[1].alive), (wire::MemberRole::Learner, false));
    assert_eq!((told[0].matched_index, told[1].address.as_str()), (12, "http://g:1"));
}

proptest! {
    /// The front door never lets in what an engine would refuse, nor what the state would.
    #[test]
    fn whatever_is_accepted_is_accepted_further_in(
        prompt in ".{0,60}", width in 0_u32..3_000, height in 0_u32..3_000, steps in 0_u32..120,
        seed: u64, images in 0_u32..30, priority in 0_u32..15, tenant in ".{0,140}",
    ) {
        let plain = wire::TextToImage::default();
        let asked = wire::TextToImage { prompt, width, height, steps, seed, images, ..plain };
        let request = wire::SubmitRequest { tenant, priority, ..request(asked) };
        if let Ok(submit) = submitted(request) {
            let asked = TextToImage::decode(&submit.kind, &submit.parameters).expect("ours");
            prop_assert_eq!(asked.validate(), Ok(()));
            let mut state = State::new();
            let command = atelier_state::Command::Submit(submit);
            let reply = state.apply(atelier_state::LogIndex(1), &command);
            let accepted = matches!(reply, atelier_state::Reply::Submitted { .. });
            prop_assert!(accepted, "{:?}", reply);
        }
    }
}
