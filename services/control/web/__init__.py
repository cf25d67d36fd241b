"""The built-in web shell: files of a release, exactly as its manifest says."""
