//! Scripts: a line is a command or a question, an arrow, and the recorded answer.
//!
//! Each command is an entry of its own, from index 1; a line that starts with `+` joins the entry
//! before. The audit runs after every command.

use atelier_state::{
    AllocateNode, ArtifactRef, Assign, Author, Cancel, Command, Complete, Digest, Expire, Fail,
    FencingToken, Forget, ForgetKeys, Job, JobId, LogIndex, Node, NodeId, NoteAct, Phase,
    RaiseFeatures, Refusal, RegisterNode, Release, RemoveNode, Reply, Revoke, RevokeReason,
    SetNode, SetSettings, SettingChange, SettingValue, State, Submit, TenantKey, audit,
};
use std::fmt::Write;

/// Plays a script from the empty state and compares every answer.
pub(crate) fn check(script: &str) -> State {
    let mut story = Story { state: State::new(), index: LogIndex(0) };
    let (mut expected, mut found) = (String::new(), String::new());
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (ask, answer) = line.split_once(" -> ").expect("a line is `command -> answer`");
        writeln!(expected, "{} -> {}", ask.trim(), answer.trim()).expect("a text grows");
        writeln!(found, "{} -> {}", ask.trim(), story.play(ask.trim())).expect("a text grows");
    }
    assert!(expected == found, "\nexpected:\n{expected}\nfound:\n{found}");
    story.state
}

/// Applies a command and audits the step.
pub(crate) fn apply_audited(state: &mut State, index: LogIndex, command: &Command) -> Reply {
    let before = state.clone();
    let reply = state.apply(index, command);
    let step = audit::check_step(&before, command, &reply, state);
    step.and_then(|()| audit::check(state)).unwrap_or_else(|found| panic!("{command:?}: {found}"));
    reply
}

/// Reads one command.
pub(crate) fn command(ask: &str) -> Command {
    Line(ask.split_whitespace().collect()).command().expect("it is a command")
}

struct Story {
    state: State,
    index: LogIndex,
}

impl Story {
    fn play(&mut self, ask: &str) -> String {
        let (is_joined, ask) = match ask.strip_prefix('+') {
            Some(rest) => (true, rest.trim()),
            None => (false, ask),
        };
        let line = Line(ask.split_whitespace().collect());
        let Some(command) = line.command() else { return self.answer(&line) };
        if !is_joined {
            self.index = LogIndex(self.index.0 + 1);
        }
        reply_text(&apply_audited(&mut self.state, self.index, &command))
    }

    fn answer(&self, line: &Line<'_>) -> String {
        let state = &self.state;
        match line.verb() {
            "queue" => join(state.queued().map(|(id, _)| job_text(*id))),
            "ended" => join(state.terminal_oldest().map(|(id, _)| job_text(*id))),
            "leases" => {
                join(state.leases().map(|(id, it)| format!("{}@n{}", job_text(id), it.node)))
            }
            "nodes" => join(state.nodes().map(|(id, node)| node_text(id, node))),
            "job" => state.job(line.job(1)).map_or("none".to_owned(), phase_text),
            "delayed" => join(state.delayed().map(|(id, at)| format!("{}@{at}", job_text(id)))),
            "deadlines" => join(state.deadlines().map(|(id, at)| format!("{}@{at}", job_text(id)))),
            "failed" => join(state.failed().map(|(id, _)| job_text(*id))),
            "keys" => {
                join(state.forgotten_keys().map(|it| format!("{}/{}", it.key.tenant, it.key.key)))
            }
            "attempts" => {
                join(
                    state.job(line.job(1)).expect("it is there").attempts.iter().map(|it| {
                        format!("{}:n{}@{}:{}", it.token, it.node, it.failed_ms, it.error)
                    }),
                )
            }
            "tenants" => join(
                state
                    .tenants()
                    .map(|it| format!("{}:{}+{}*{}", it.tenant, it.queued, it.leased, it.weight)),
            ),
            "trail" => join(state.trail().map(|it| format!("[{} {}]", it.author.who, it.act))),
            "settings" => join(
                state
                    .settings()
                    .iter()
                    .filter(|it| it.version > 0)
                    .map(|it| format!("{}={}@{}", it.key, it.value, it.version)),
            ),
            "level" => format!("{} marked {}", state.features(), state.marked().0),
            "node" => state.node(line.node(1)).map_or("none".to_owned(), |it| {
                format!("draining {} witness {} labels {:?}", it.draining, it.witness, it.labels)
            }),
            "digest" => state.digest().to_string(),
            "position" => format!("{:?}", state.position(line.job(1))),
            "holders" => {
                let artifact = state.artifact_holders(&digest(line.0[1]));
                artifact.map_or("none".to_owned(), |it| join(it.holders.iter().map(node_name)))
            }
            verb => panic!("no such verb: {verb}"),
        }
    }
}

/// A line's words: a verb, its objects, and options `name=value`.
struct Line<'a>(Vec<&'a str>);

impl<'a> Line<'a> {
    fn verb(&self) -> &'a str {
        self.0[0]
    }

    fn option(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    fn number(&self, name: &str, default: u64) -> u64 {
        self.option(name).map_or(default, |text| text.parse().expect("a number"))
    }

    fn text(&self, name: &str, default: &str) -> String {
        self.option(name).unwrap_or(default).to_owned()
    }

    fn job(&self, word: usize) -> JobId {
        job_id(self.0[word])
    }

    fn node(&self, word: usize) -> NodeId {
        NodeId(self.0[word].strip_prefix('n').expect("n1").parse().expect("a number"))
    }

    fn token(&self) -> FencingToken {
        FencingToken(self.number("token", 0))
    }

    fn command(&self) -> Option<Command> {
        Some(match self.verb() {
            "submit" => Command::Submit(self.submit()),
            "assign" => Command::Assign(Assign {
                job: self.job(1),
                node: self.node(2),
                incarnation: self.number("incarnation", 1),
            }),
            "complete" => Command::Complete(self.complete()),
            "fail" => Command::Fail(Fail {
                job: self.job(1),
                token: self.token(),
                error: self.text("error", "oom"),
                permanent: self.0.contains(&"permanent"),
                finished_ms: self.number("ms", 2_000),
            }),
            "revoke" => Command::Revoke(Revoke {
                job: self.job(1),
                token: self.token(),
                reason: RevokeReason::Silent,
            }),
            "release" => Command::Release(Release { jobs: self.jobs() }),
            "expire" => {
                Command::Expire(Expire { job: self.job(1), finished_ms: self.number("ms", 2_000) })
            }
            "forget-keys" => Command::ForgetKeys(ForgetKeys {
                keys: self.0[1..].iter().map(|it| tenant_key(it)).collect(),
            }),
            "set" => Command::SetSettings(self.set_settings()),
            "set-node" => Command::SetNode(self.set_node()),
            "raise" => Command::RaiseFeatures(RaiseFeatures {
                level: self.0[1].parse().expect("a number"),
            }),
            "mark" => Command::Mark,
            "note" => {
                Command::NoteAct(NoteAct { act: self.text("act", ""), author: self.author() })
            }
            "cancel" => Command::Cancel(Cancel {
                job: self.job(1),
                reason: self.text("reason", "unwanted"),
                finished_ms: 2_000,
            }),
            "forget" => Command::Forget(Forget { jobs: self.jobs() }),
            "allocate" => Command::AllocateNode(AllocateNode { address: self.text("address", "") }),
            "register" => Command::RegisterNode(self.register()),
            "remove" => {
                Command::RemoveNode(RemoveNode { node: self.node(1), author: self.author() })
            }
            _ => return None,
        })
    }

    fn jobs(&self) -> Vec<JobId> {
        self.0[1..].iter().map(|it| job_id(it)).collect()
    }

    fn author(&self) -> Author {
        Author { who: self.text("who", ""), why: self.text("why", ""), at_ms: 0 }
    }

    /// `set v0 queue.paused=true queue.weight.a=default`
    fn set_settings(&self) -> SetSettings {
        let version = self.0[1].strip_prefix('v').expect("v0").parse().expect("a number");
        let dotted = self.0[2..].iter().filter_map(|word| word.split_once('='));
        let changes = dotted.filter(|(key, _)| key.contains('.')).map(|(key, value)| {
            let value = match value {
                "default" => None,
                "true" | "false" => Some(SettingValue::Flag(value == "true")),
                number => Some(SettingValue::Number(number.parse().expect("a number"))),
            };
            SettingChange { key: key.to_owned(), value }
        });
        SetSettings { expected_version: version, changes: changes.collect(), author: self.author() }
    }

    /// `set-node n1 drain zone=a -rack`
    fn set_node(&self) -> SetNode {
        let has = |word: &str| self.0.contains(&word);
        let labels = self.0[2..].iter().filter_map(|word| word.split_once('='));
        let labels = labels.filter(|(label, _)| *label != "who");
        let removed = self.0[2..].iter().filter_map(|word| word.strip_prefix('-'));
        SetNode {
            node: self.node(1),
            draining: if has("drain") { Some(true) } else { has("resume").then_some(false) },
            labels_set: labels.map(|(label, it)| (label.to_owned(), it.to_owned())).collect(),
            labels_removed: removed.map(str::to_owned).collect(),
            author: self.author(),
        }
    }

    fn submit(&self) -> Submit {
        Submit {
            job: self.job(1),
            tenant: self.text("tenant", "default").into(),
            idempotency_key: self.option("key").map(Into::into),
            priority: u8::try_from(self.number("priority", 5)).expect("a small number"),
            kind: self.text("kind", "text_to_image/v1").into(),
            parameters: self.text("body", "a cat").into(),
            traceparent: self.text("trace", ""),
            submitted_ms: self.number("ms", 1_000),
            attempts_max: u32::try_from(self.number("attempts", 3)).expect("a small number"),
            deadline_ms: self.number("deadline", 0),
            max_runtime_s: u32::try_from(self.number("runtime", 0)).expect("a small number"),
            cost: u32::try_from(self.number("cost", 1)).expect("a small number"),
            retry_of: self.option("retry").map(job_id),
        }
    }

    fn complete(&self) -> Complete {
        let names = self.option("artifacts").unwrap_or("a").split(',');
        let holders = self.option("holders").unwrap_or("n1").split(',');
        let holders: Vec<NodeId> = holders
            .filter_map(|it| it.strip_prefix('n'))
            .map(|it| NodeId(it.parse().expect("a number")))
            .collect();
        let artifacts = names.filter(|name| !name.is_empty()).map(|name| ArtifactRef {
            digest: digest(name),
            bytes: 100,
            media_type: "image/png".to_owned(),
            holders: holders.clone(),
        });
        Complete {
            job: self.job(1),
            token: self.token(),
            artifacts: artifacts.collect(),
            finished_ms: 2_000,
        }
    }

    fn register(&self) -> RegisterNode {
        RegisterNode {
            node: self.node(1),
            address: self.text("address", "http://host:7861"),
            incarnation: self.number("incarnation", 1),
            slots: u32::try_from(self.number("slots", 1)).expect("a small number"),
            class: self.text("class", "cpu"),
            model: self.text("model", "small"),
            witness: self.0.contains(&"witness"),
        }
    }
}

fn tenant_key(word: &str) -> TenantKey {
    let (tenant, key) = word.split_once('/').expect("tenant/key");
    TenantKey { tenant: tenant.into(), key: key.into() }
}

fn job_id(word: &str) -> JobId {
    JobId(word.strip_prefix('j').expect("j1").parse().expect("a number"))
}

/// The digest whose first byte is the name's letter.
fn digest(name: &str) -> Digest {
    let mut bytes = [0; 32];
    bytes[0] = name.as_bytes()[0];
    Digest(bytes)
}

fn job_text(job: JobId) -> String {
    format!("j{}", job.0)
}

fn node_name(node: &NodeId) -> String {
    format!("n{node}")
}

fn node_text(id: NodeId, node: &Node) -> String {
    format!("n{id}#{}/{}", node.incarnation, node.slots)
}

fn phase_text(job: &Job) -> String {
    let phase = job.phase.name();
    let errors: Vec<&str> = job.attempts.iter().map(|it| it.error.as_str()).collect();
    match &job.phase {
        Phase::Queued if job.attempts.is_empty() => phase.to_owned(),
        Phase::Queued | Phase::Failed => format!("{phase} after {}", errors.join(", ")),
        Phase::Leased(lease) => format!("{phase} to n{} as {}", lease.node, lease.token),
        Phase::Succeeded => {
            let names = job.artifacts.iter().map(|it| char::from(it.digest.0[0]).to_string());
            format!("{phase} with {} at {}", join(names), job.finished.0)
        }
        Phase::Cancelled => format!("{phase}: {}", job.cancel_reason),
    }
}

fn reply_text(reply: &Reply) -> String {
    match reply {
        Reply::Submitted { job, duplicate, log_index } => {
            let word = if *duplicate { "repeat of" } else { "accepted" };
            format!("{word} {} at {}", job_text(*job), log_index.0)
        }
        Reply::Assigned { token } => format!("token {token}"),
        Reply::NodeAllocated { node } => format!("node n{node}"),
        Reply::Done => "done".to_owned(),
        Reply::Refused(refusal) => format!("refused: {}", refusal_text(refusal)),
    }
}

fn refusal_text(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Invalid(text) => text.clone(),
        Refusal::IdempotencyConflict(job) => format!("conflict with {}", job_text(*job)),
        Refusal::StaleToken(newest) => format!("stale token, newest {newest}"),
        Refusal::StaleIncarnation(newest) => format!("stale incarnation, newest {newest}"),
        refusal => format!("{refusal:?}"),
    }
}

fn join(words: impl Iterator<Item = String>) -> String {
    let words: Vec<String> = words.collect();
    if words.is_empty() { "none".to_owned() } else { words.join(" ") }
}
