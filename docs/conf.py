"""The documentation as a site: `make docs`. Nothing is loaded from elsewhere, neither to build nor to view it."""

from serving import VERSION

project = "vllm-anywhere"
copyright = "the vllm-anywhere authors"
release = VERSION
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
nitpicky = True

# Headings can be linked to as on GitHub; a link that leads nowhere fails the build.
myst_heading_anchors = 3
myst_enable_extensions = ["fieldlist"]
html_theme = "furo"
html_title = "vllm-anywhere"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "footer_icons": [],
    "top_of_page_buttons": [],
}
