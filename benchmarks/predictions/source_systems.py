def page(s): return ""
