//! What the demo says when the picture is there.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use atelier_client::{Job, NodeId};

use super::super::generate::seconds;
use super::super::output::dash;
use super::super::timeline::Timeline;
use super::layout::Layout;
use super::peers::Peers;

/// A picture and how it came about.
pub(super) struct Report {
    pub(super) files: Vec<PathBuf>,
    pub(super) job: Job,
    pub(super) leader: NodeId,
    pub(super) start: Duration,
    pub(super) timeline: Timeline,
}

impl Report {
    /// The whole report. `stays` when the cluster outlives it.
    pub(super) fn text(&self, layout: &Layout, peers: &Peers, stays: bool) -> String {
        let mut text = String::new();
        self.result(&mut text);
        self.times(&mut text);
        self.more(&mut text, layout, peers, stays);
        text.trim_end().to_owned()
    }

    fn result(&self, text: &mut String) {
        for file in &self.files {
            line(text, &format!("\npicture  {}", file.display()));
        }
        if let Some(parameters) = &self.job.parameters {
            line(text, &format!("prompt   {}, seed {}", parameters.prompt, parameters.seed));
        }
        line(text, &format!("job      {}", self.job.job));
        line(text, &format!("leader   peer {}", self.leader));
        line(text, &format!("drawn by peer {}", dash(self.job.node)));
    }

    fn times(&self, text: &mut String) {
        line(text, "");
        let rows = self.timeline.rows();
        let total: Duration = rows.iter().map(|(_, took)| *took).sum();
        let steps = self.job.parameters.as_ref().map_or(0, |parameters| parameters.steps);
        line(text, &row("start of the cluster", self.start));
        for (stage, took) in rows {
            match (stage, steps) {
                ("denoise", 1..) => line(text, &row(&format!("denoise, {steps} steps"), took)),
                _ => line(text, &row(stage, took)),
            }
        }
        line(text, &row("submit to picture", total));
    }

    fn more(&self, text: &mut String, layout: &Layout, peers: &Peers, stays: bool) {
        let atelier = program();
        let endpoints = layout.endpoints().join(",");
        let place = layout.cluster.display();
        if stays {
            line(text, "\nThe cluster is up. In another terminal:");
        } else {
            line(
                text,
                "\nWithout a terminal the cluster stops now. In a terminal it stays, and then:",
            );
        }
        line(text, &format!("  export ATELIER_ENDPOINTS={endpoints}"));
        line(text, &format!("  {atelier} generate \"a dog on a red background\" -o dog.png"));
        line(text, &format!("  {atelier} generate \"蓝色背景上的猫\" -o cat.png --seed 7"));
        line(text, &format!("  {atelier} status"));
        line(text, &format!("  {atelier} job list"));
        if let Some(node) = layout.nodes.first() {
            line(text, &format!("or open http://127.0.0.1:{}/ in a browser", node.http_port));
        }
        if stays {
            line(text, "\nKill a peer while it draws: the same picture comes all the same.");
            for (node, pid) in peers.pids() {
                let role = if node == self.leader { ", the leader" } else { "" };
                line(text, &format!("  kill -9 {pid}    # peer {node}{role}"));
            }
            line(text, "A peer that died is started again after a while.");
        }
        line(text, "\nThe bundled model is a toy that knows a few icons on plain backgrounds.");
        line(text, "For the real one point to a directory of Z-Image-Turbo (diffusers layout):");
        line(text, &format!("  {atelier} demo --model DIR --prompt \"a red fox in the snow\""));
        line(text, &format!("\nConfiguration, logs and data are in {place}"));
        if stays {
            line(text, "Ctrl-C stops the cluster.");
        }
    }
}

fn row(stage: &str, took: Duration) -> String {
    format!("{stage:<22} {:>9}", seconds(took))
}

fn line(text: &mut String, words: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{words}");
}

/// This program as it was called.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "atelier".to_owned())
}
