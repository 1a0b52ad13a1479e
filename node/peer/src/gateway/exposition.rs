//! The two text formats of metrics, and who gets which.
//!
//! Prometheus asks for OpenMetrics and gets it. Whoever asks for nothing, as `curl` and
//! `promtool check metrics` do, gets the older format, in which a counter's family has the name of
//! its samples.

/// What Prometheus asks for.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// What the older format calls itself.
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Returns a text of the OpenMetrics format as the `Accept` header of a request wants it, with its
/// media type.
pub(crate) fn negotiate(accept: Option<&str>, open_metrics: String) -> (&'static str, String) {
    let wants = |accept: &str| accept.contains("application/openmetrics-text");
    if accept.is_some_and(wants) {
        return (OPEN_METRICS, open_metrics);
    }
    let mut plain = String::with_capacity(open_metrics.len());
    let mut lines = open_metrics.lines().peekable();
    let mut ending = "";
    while let Some(line) = lines.next() {
        let told = match line.strip_prefix("# ") {
            None => Some(line.to_owned()),
            // The help comes first; the type says what the family is called.
            Some(told) if told.starts_with("HELP ") => {
                let kind = lines.peek().and_then(|next| next.rsplit(' ').next());
                ending = match kind {
                    Some("counter") => "_total",
                    Some("info") => "_info",
                    _ => "",
                };
                renamed(told, ending)
            }
            Some(told) if told.starts_with("TYPE ") => {
                renamed(told, ending).map(|told| told.replace(" info", " gauge"))
            }
            // Units and the end are not of this format.
            Some(_) => None,
        };
        if let Some(line) = told {
            plain.push_str(&line);
            plain.push('\n');
        }
    }
    (PLAIN, plain)
}

/// Gives the family that a line of metadata tells of its name in the older format.
fn renamed(told: &str, ending: &str) -> Option<String> {
    let (what, rest) = told.split_once(' ')?;
    let (name, rest) = rest.split_once(' ')?;
    Some(format!("# {what} {name}{ending} {rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP a_build Version of this info.
# TYPE a_build info
a_build_info{version=\"1\"} 1
# HELP a_jobs Jobs.
# TYPE a_jobs counter
a_jobs_total 2
# HELP a_wait_seconds Time.
# TYPE a_wait_seconds histogram
# UNIT a_wait_seconds seconds
a_wait_seconds_sum 0
# EOF
";

    #[test]
    fn who_asks_for_open_metrics_gets_them_as_they_are() {
        let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
        assert_eq!(negotiate(Some(accept), TEXT.to_owned()), (OPEN_METRICS, TEXT.to_owned()));
    }

    #[test]
    fn others_get_the_older_format() {
        let plain = "\
# HELP a_build_info Version of this info.
# TYPE a_build_info gauge
a_build_info{version=\"1\"} 1
# HELP a_jobs_total Jobs.
# TYPE a_jobs_total counter
a_jobs_total 2
# HELP a_wait_seconds Time.
# TYPE a_wait_seconds histogram
a_wait_seconds_sum 0
";
        for accept in [None, Some("*/*"), Some("text/plain")] {
            assert_eq!(negotiate(accept, TEXT.to_owned()), (PLAIN, plain.to_owned()));
        }
    }
}
