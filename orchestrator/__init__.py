"""Why will this guest not give its memory back, and what would make it?"""
