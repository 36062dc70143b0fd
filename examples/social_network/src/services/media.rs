//! Media: takes what may be published. It looks at what is said of a picture, and never at the picture.

use crate::call::{Answer, Call, Failure, Role};

/// The most media of a post.
const MAX_MEDIA: usize = 4;

/// The largest of them in bytes.
const MAX_MEDIA_BYTES: u64 = 16 << 20;

/// Says what may be published.
pub(crate) struct Admission;

impl Admission {
    pub(crate) fn answer(&self, call: Call) -> Result<Answer, Failure> {
        let media = match call {
            Call::Admit { media } => media,
            Call::Reset => return Ok(Answer::Done),
            _ => return Err(Failure::NotMine { role: Role::Media }),
        };
        if media.len() > MAX_MEDIA {
            return Err(Failure::Refused(format!("{} media are over the limit of {MAX_MEDIA}", media.len())));
        }
        for item in &media {
            if item.content.len() > MAX_MEDIA_BYTES {
                return Err(Failure::Refused(format!("{} bytes are over the limit", item.content.len())));
            }
            if !item.kind.starts_with("image/") && !item.kind.starts_with("video/") {
                return Err(Failure::Refused(format!("{} is no picture and no film", item.kind)));
            }
        }
        Ok(Answer::Media(media))
    }
}
