# bash completion for xenplug
# Devices and guests come from the running agent; without an agent they are not offered.

# The names that the agent of this command line (--socket, --settings) knows:
# _xenplug_names devices|guests|controllers. Devices by port, and by tag if only one device has it.
# xenplug itself writes the words. It must import nothing from the current folder or from PYTHONPATH: Tab must not run
# code that another user put there.
_xenplug_names() {
    local word
    PYTHONPATH='' PYTHONHOME='' PYTHONSAFEPATH=1 xenplug complete "$1" "${asked[@]}" 2>/dev/null |
        while IFS=$'\t' read -r word _; do printf '%s\n' "$word"; done
}

# Offers the lines on stdin. Not with compgen -W, which would expand a guest's name. For bash a colon ends a word, so the
# part before the last colon is not part of the answer.
_xenplug_offer() {
    local word
    while IFS= read -r word; do
        [[ $word == "$cur"* ]] && COMPREPLY+=("$(printf %q "${word#"${cur%"${cur##*:}"}"}")")
    done
}

# Sets `words` to the words before the cursor, joining those that bash split at colons and equals signs.
_xenplug_whole_words() {
    local piece
    words=()
    for piece in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do
        if [[ ${#words[@]} -gt 1 && ($piece == [:=]* || ${words[-1]} == *[:=]) ]]; then
            words[-1]+=$piece
        else
            words+=("$piece")
        fi
    done
}

# Reads `words` before the cursor: `place` counts the positional arguments, `asked` gets the options that select an agent.
_xenplug_count() {
    local i
    for ((i = 2; i < ${#words[@]} - 1; i++)); do
        case ${words[i]} in
        --socket | --settings) asked+=("${words[i]}" "${words[++i]}") ;;
        --policy | --host | --guests | --guest | --root | --format | --type | --toolstack | --junit | --give) ((i++)) ;;
        --socket=* | --settings=*) asked+=("${words[i]}") ;;
        -*) ;;
        *) ((place++)) ;;
        esac
    done
}

_xenplug() {
    local cur prev command words options='' place=0 asked=()
    COMPREPLY=()
    _xenplug_whole_words
    cur=${words[-1]}
    prev=${words[-2]}
    command=${words[1]}

    if ((${#words[@]} == 2)); then
        options='run check devices explain status attach detach release pause resume prefer reload history simulate test
            udev-rules import init record xl-cfg schema doctor config --help --version'
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
        return
    fi
    case $prev in
    --policy | --settings | --socket | --guests | --root | --junit)
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        return
        ;;
    --host)
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -W udev -- "$cur"; compgen -f -- "$cur")
        return
        ;;
    --format)
        mapfile -t COMPREPLY < <(compgen -W 'text github json' -- "$cur")
        return
        ;;
    --guest)
        _xenplug_count
        _xenplug_offer < <(_xenplug_names guests)
        return
        ;;
    --type)
        mapfile -t COMPREPLY < <(compgen -W 'pv pvh hvm' -- "$cur")
        return
        ;;
    --toolstack)
        mapfile -t COMPREPLY < <(compgen -W 'xl simulated' -- "$cur")
        return
        ;;
    esac
    if [[ $cur == -* ]]; then
        case $command in
        run) options='--policy --settings --host --toolstack --guests --dry-run --debug' ;;
        doctor) options='--all --root --policy --json --socket --settings' ;;
        check) options='--strict --elsewhere --format --policy --json --host --socket --settings' ;;
        devices) options='--tree --json --host --socket --settings' ;;
        explain) options='--json --policy --host --socket --settings' ;;
        status) options='--watch --json --socket --settings' ;;
        detach) options='--all --json --socket --settings' ;;
        history) options='--follow --json --socket --settings' ;;
        prefer) options='--clear --json --socket --settings' ;;
        attach | release | pause | resume | reload) options='--json --socket --settings' ;;
        simulate | schema) options='--json' ;;
        test) options='--junit --json' ;;
        init) options='--give --force --host --settings' ;;
        record) options='--no-serials --settings' ;;
        import) options='--guest --json --host --settings' ;;
        udev-rules) options='--policy' ;;
        xl-cfg) options='--type --json --policy --host --settings' ;;
        config) options='--json --settings' ;;
        esac
        mapfile -t COMPREPLY < <(compgen -W "--help $options" -- "$cur")
        return
    fi
    _xenplug_count
    case $command:$place in
    explain:0 | attach:0 | history:0) _xenplug_offer < <(_xenplug_names devices) ;;
    detach:0 | release:0) _xenplug_offer < <(_xenplug_names devices; _xenplug_names controllers) ;;
    attach:1 | prefer:0 | xl-cfg:0) _xenplug_offer < <(_xenplug_names guests) ;;
    pause:0 | resume:0) _xenplug_offer < <(echo all; _xenplug_names guests; _xenplug_names devices) ;;
    schema:0) mapfile -t COMPREPLY < <(compgen -W 'policy scenario settings' -- "$cur") ;;
    check:* | simulate:* | test:* | import:* | init:* | record:*)
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        ;;
    esac
}

complete -F _xenplug xenplug
