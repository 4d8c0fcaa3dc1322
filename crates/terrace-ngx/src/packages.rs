//! Where packages of Lua modules lie without being configured: in the trees that opm and LuaRocks make below nginx's prefix
//! and LuaRocks below the user's home. They stand at the front of the default path, and so before the modules in the
//! binary; what the system's package manager installs comes behind those (`lualib/terrace/system_packages.lua`).

use std::fmt::Write as _;
use std::path::Path;

/// The beginnings of the default paths, each template ended by a semicolon.
pub struct Trees {
    /// Of Lua modules.
    pub path: String,
    /// Of C modules.
    pub cpath: String,
}

impl Trees {
    /// The trees of a prefix and of a user.
    pub fn of(prefix: &Path, home: Option<&Path>) -> Trees {
        let mut trees = Trees { path: String::new(), cpath: String::new() };
        let of_opm = prefix.join("resty_modules/lualib");
        trees.add(&of_opm, &of_opm);
        let of_rocks = [Some(prefix.join("lua_modules")), home.map(|home| home.join(".luarocks"))];
        for tree in of_rocks.iter().flatten() {
            trees.add(&tree.join("share/lua/5.1"), &tree.join("lib/lua/5.1"));
        }
        trees
    }

    fn add(&mut self, scripts: &Path, libraries: &Path) {
        let (scripts, libraries) = (scripts.display(), libraries.display());
        // Writing to a String does not fail.
        let _ = write!(self.path, "{scripts}/?.lua;{scripts}/?/init.lua;");
        let _ = write!(self.cpath, "{libraries}/?.so;");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_of_prefix_and_home() {
        let trees = Trees::of(Path::new("/srv"), Some(Path::new("/home/me")));
        assert_eq!(
            trees.path,
            "/srv/resty_modules/lualib/?.lua;/srv/resty_modules/lualib/?/init.lua;\
             /srv/lua_modules/share/lua/5.1/?.lua;/srv/lua_modules/share/lua/5.1/?/init.lua;\
             /home/me/.luarocks/share/lua/5.1/?.lua;/home/me/.luarocks/share/lua/5.1/?/init.lua;"
        );
        assert_eq!(
            Trees::of(Path::new("/srv"), None).cpath,
            "/srv/resty_modules/lualib/?.so;/srv/lua_modules/lib/lua/5.1/?.so;"
        );
    }
}
