"""Forms for one platform: only here is it known which one a program is for."""
