//! Text: finds links and mentions, and has them looked up.

use crate::call::{Answer, Call, Failure, Role};
use crate::net::Net;

/// The longest text in bytes.
const MAX_TEXT_BYTES: usize = 10_000;

/// Works on texts.
pub(crate) struct Text;

impl Text {
    pub(crate) async fn answer(&self, call: Call, net: &Net) -> Result<Answer, Failure> {
        let text = match call {
            Call::Process { text } => text,
            Call::Reset => return Ok(Answer::Done),
            _ => return Err(Failure::NotMine { role: Role::Text }),
        };
        if text.len() > MAX_TEXT_BYTES {
            return Err(Failure::Refused(format!("a text of {} bytes is over the limit", text.len())));
        }
        let (urls, names) = (links(&text), mentions(&text));
        let (urls, mentions) = tokio::join!(
            net.call(Role::UrlShorten, Call::Shorten { urls }),
            net.call(Role::UserMention, Call::Find { names }),
        );
        let (urls, mentions) = (urls?.urls()?, mentions?.users()?);
        let mut text = text;
        for url in &urls {
            text = text.replace(&url.long, &url.short);
        }
        Ok(Answer::Text { text, urls, mentions })
    }
}

fn links(text: &str) -> Vec<String> {
    let links = text.split_whitespace().filter(|word| word.starts_with("http://") || word.starts_with("https://"));
    links.map(str::to_owned).collect()
}

fn mentions(text: &str) -> Vec<String> {
    text.split_whitespace().filter_map(|word| word.strip_prefix('@')).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_meant() {
        let text = "hello @user_7, @user_9 see https://a.example/x and a@b.example";
        assert_eq!(links(text), ["https://a.example/x"]);
        assert_eq!(mentions(text), ["user_7,", "user_9"]);
    }
}
