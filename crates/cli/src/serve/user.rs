//! `-u` and `-g`: who the server is once it has its sockets.

use anyhow::{Context, Result, anyhow};
use nix::unistd::{Gid, Group, Uid, User, setgid, setgroups, setuid};

/// Whom to become; looked up while errors still reach the terminal.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    user: Option<Uid>,
    group: Option<Gid>,
}

impl Identity {
    /// Looks up names; what is no name may be a number.
    pub(crate) fn find(user: Option<&str>, group: Option<&str>) -> Result<Identity> {
        let user = user.map(|name| -> Result<Uid> {
            let found =
                User::from_name(name).with_context(|| format!("-u {name}: cannot look up the user"))?;
            let number = || name.parse().ok().map(Uid::from_raw);
            found
                .map(|user| user.uid)
                .or_else(number)
                .ok_or_else(|| anyhow!("-u {name}: there is no such user"))
        });
        let group = group.map(|name| -> Result<Gid> {
            let found =
                Group::from_name(name).with_context(|| format!("-g {name}: cannot look up the group"))?;
            let number = || name.parse().ok().map(Gid::from_raw);
            found
                .map(|group| group.gid)
                .or_else(number)
                .ok_or_else(|| anyhow!("-g {name}: there is no such group"))
        });
        Ok(Identity { user: user.transpose()?, group: group.transpose()? })
    }

    /// Becomes them, for good: every thread, with no further groups.
    pub(crate) fn take_on(&self) -> Result<()> {
        if *self == Identity::default() {
            return Ok(());
        }
        // While still root: the groups of whoever started the server are not for the one it becomes.
        setgroups(self.group.as_slice()).context("cannot give up groups")?;
        if let Some(group) = self.group {
            setgid(group).with_context(|| format!("-g: cannot become group {group}"))?;
        }
        if let Some(user) = self.user {
            setuid(user).with_context(|| format!("-u: cannot become user {user}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_have_names_and_numbers() {
        let root = Identity { user: Some(Uid::from_raw(0)), group: Some(Gid::from_raw(0)) };
        assert_eq!(Identity::find(Some("root"), Some("root")).unwrap(), root);
        assert_eq!(Identity::find(Some("0"), Some("0")).unwrap(), root);
        let number = Identity::find(None, Some("12345")).unwrap();
        assert_eq!(number, Identity { user: None, group: Some(Gid::from_raw(12345)) });
        Identity::default().take_on().unwrap();
    }

    #[test]
    fn whoever_does_not_exist_is_named() {
        let error = |user, group| Identity::find(user, group).unwrap_err().to_string();
        assert_eq!(error(Some("no-such-user"), None), "-u no-such-user: there is no such user");
        assert_eq!(error(None, Some("-7")), "-g -7: there is no such group");
    }
}
